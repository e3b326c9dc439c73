#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "vec/scalar.h"

#undef ISA
#define ISA(name) name##_amx_emulated

#include "abi.h"

#include "vec/emulated_bf16.h"
#include "kernels/split.h"
#include "amx/tile_emulated.h"
#include "amx/gemm.h"
