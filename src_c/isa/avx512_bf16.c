#include <math.h>
#include <stdint.h>

#include "vec/avx512_bf16.h"

#include "abi.h"

#include "kernels/split.h"
#include "kernels/dot.h"
