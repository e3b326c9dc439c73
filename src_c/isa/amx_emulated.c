#include <stdint.h>

#include "vec/scalar.h"

#undef ISA
#define ISA(name) name##_amx_emulated

#include "vec/emulated_bf16.h"
#include "isa/bf16.h"
#include "amx/tile_emulated.h"
#include "amx/gemm.h"
