#include <stdint.h>

#include "vec/neon.h"

#include "isa/table.h"
