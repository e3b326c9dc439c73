#include <stdint.h>

#include "vec/avx512.h"

#include "isa/table.h"
