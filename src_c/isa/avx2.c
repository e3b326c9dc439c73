#include <stdint.h>

#include "vec/avx2.h"

#include "isa/table.h"
