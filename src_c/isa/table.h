/* Included once per ISA after its vec/ header: the kernels, compiled for it, and the one symbol that leaves the object. */
#include <math.h>

#include "abi.h"

#ifndef v_dot2
#include "vec/emulated_bf16.h"
#endif

#include "kernels/num.h"
#include "kernels/gemm.h"
#include "kernels/peak.h"
#include "kernels/math.h"
#include "kernels/act.h"
#include "kernels/depthwise.h"
#include "kernels/winograd.h"
#include "kernels/affine.h"
#include "kernels/elementwise.h"
#include "kernels/pool.h"
#include "kernels/reduce.h"
#include "kernels/norm.h"
#include "kernels/softmax.h"
#include "kernels/lrn.h"

const infold_kernels ISA(infold_kernels) = {
    .name = ISA_NAME,
    .lanes = VL,
    .mr = VEC_MR,
    .nr = 2 * VL,
    .gemm = {GEMM_ROW(1), GEMM_ROW(2)},
    .fma_peak = fma_peak_run,
    .depthwise = {depthwise_run, DW_PIXELS, DW_ROWS, DW_GROUPED},
    .winograd_in = {winograd2_in_run, winograd4_in_run},
    .winograd_out = {winograd2_out_run, winograd4_out_run},
    .act = act_run,
    .binary = binary_run,
    .affine = affine_run,
    .transpose = transpose_run,
    .pool_max = pool_max_run,
    .pool_sum = pool_sum_run,
    .pool_weighted = pool_weighted_run,
    .reduce_columns = reduce_columns_run,
    .reduce_run = reduce_run_run,
    .moments_columns = moments_columns_run,
    .moments_run = moments_run_run,
    .moments_rows = moments_rows_run,
    .settle = settle_run,
    .normalize = normalize_run,
    .stream_end = stream_end_run,
    .softmax = softmax_run,
    .lrn = lrn_run,
};
