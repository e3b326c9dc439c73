#include <stdint.h>

#include "vec/avx512_bf16.h"

#include "isa/bf16.h"
#include "kernels/dot.h"
