#include <stdint.h>

#include "vec/scalar.h"

#include "isa/table.h"
