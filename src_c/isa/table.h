/* Included once per ISA after its vec/ header: the kernels, compiled for it, and the one symbol that leaves the object. */
#include <math.h>

#include "abi.h"

#include "kernels/gemm.h"
#include "kernels/math.h"
#include "kernels/act.h"
#include "kernels/depthwise.h"
#include "kernels/elementwise.h"
#include "kernels/pool.h"

const infold_kernels ISA(infold_kernels) = {
    .name = ISA_NAME,
    .lanes = VL,
    .mr = VEC_MR,
    .nr = 2 * VL,
    .gemm = {GEMM_ROW(1), GEMM_ROW(2)},
    .depthwise = depthwise_run,
    .act = act_run,
    .binary = binary_run,
    .affine = affine_run,
    .transpose = transpose_run,
    .pool_max = pool_max_run,
    .pool_sum = pool_sum_run,
};
