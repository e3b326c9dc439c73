#include <stdint.h>

#include "vec/scalar.h"

#include "isa/table.h"

#include "kernels/split.h"
#include "kernels/dot.h"
