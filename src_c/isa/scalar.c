#include <stdint.h>

#include "vec/scalar.h"

#include "isa/table.h"

#include "vec/emulated_bf16.h"

#include "kernels/split.h"
#include "kernels/dot.h"
