#include <stdint.h>

#include "vec/avx512_bf16.h"

#undef ISA
#define ISA(name) name##_amx

#include "isa/bf16.h"
#include "amx/tile.h"
#include "amx/gemm.h"
