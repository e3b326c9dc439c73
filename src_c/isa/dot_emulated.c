#include <stdint.h>

#include "vec/scalar.h"

#undef ISA
#define ISA(name) name##_dot_emulated

#include "vec/emulated_bf16.h"
#include "isa/bf16.h"
#include "kernels/dot.h"
