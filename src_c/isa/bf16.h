/* Included once per set of bf16 kernels, after its vec/ header: what they have in common. The matrix kernel's header comes next,
 * and ends in the table. */
#include <math.h>
#include <stdbool.h>

#include "abi.h"

#define NUM_BF16
#include "kernels/num.h"
#include "kernels/store.h"
#include "kernels/math.h"
#include "kernels/act.h"
#include "kernels/affine.h"
#include "kernels/depthwise.h"
#include "kernels/winograd.h"
#include "kernels/pool.h"
#include "kernels/reduce.h"
#include "kernels/split.h"

#define BF16_IMAGES                                                                                                     \
    .split = split_run, .widen = widen_run, .act = act_run, .affine = affine_run,                                       \
    .depthwise = {depthwise_run, DW_PIXELS, DW_ROWS, DW_GROUPED},                                                                   \
    .winograd_in = {winograd2_in_run, winograd4_in_run}, .winograd_out = {winograd2_out_run, winograd4_out_run},         \
    .pool_max = pool_max_run, .pool_sum = pool_sum_run, .reduce_columns = reduce_columns_run
