#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "vec/avx512_bf16.h"

#undef ISA
#define ISA(name) name##_amx

#include "abi.h"

#include "kernels/split.h"
#include "amx/tile.h"
#include "amx/gemm.h"
