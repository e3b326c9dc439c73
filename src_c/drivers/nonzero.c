/* Coordinates of the truth values that are set, in row-major order, and how many there are. There is room for all. */
#include "drivers/check.h"

enum { IN, OUT, COUNT, D = INFOLD_MAX_DIMS };

typedef struct {
    int64_t shape[D], dims; /* of a row-major tensor; the result has a row of prod(shape) numbers for each of the last `dims` */
} nonzero_params;

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const nonzero_params *p = params;
    CHECK(p->dims >= 0 && p->dims <= D, INFOLD_EPARAM);
    int64_t total = 1;
    for (int d = 0; d < D; d++)
        CHECK(p->shape[d] >= 0 && !__builtin_mul_overflow(total, p->shape[d], &total), INFOLD_EBOUNDS);
    CHECK(span_fits(span_of_run(total), &e[IN], 1) && span_fits(span_of_run(1), &e[COUNT], 8), INFOLD_EBOUNDS);
    return span_fits(span_repeat(span_of_run(total), 1, &p->dims, &total), &e[OUT], 8) ? INFOLD_OK : INFOLD_EBOUNDS;
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    (void)ctx;
    const nonzero_params *p = params;
    const uint8_t *in = args[IN];
    int64_t total = 1, found = 0, *out = args[OUT];
    for (int d = 0; d < D; d++) total *= p->shape[d];
    for (int64_t at = 0; at < total; at++) {
        if (!in[at]) continue;
        int64_t rest = at;
        for (int64_t d = 1; d <= p->dims; d++) {
            out[(p->dims - d) * total + found] = rest % p->shape[D - d];
            rest /= p->shape[D - d];
        }
        found++;
    }
    *(int64_t *)args[COUNT] = found;
}

const infold_op infold_op_nonzero = {
    .name = "nonzero",
    .params = "shape[6] dims",
    .args = "in out count",
    .params_size = sizeof(nonzero_params),
    .check = check,
    .run = run,
};
