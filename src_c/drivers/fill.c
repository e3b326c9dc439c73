/* Constant fill of a strided block of rows; the planner uses it for zero borders and for Pad. */
#include "drivers/check.h"
#include "drivers/parallel.h"

enum { D = INFOLD_MAX_DIMS };

typedef struct {
    int64_t shape[D], out_stride[D];
    double value;
} fill_params;

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const fill_params *p = params;
    return span_fits(span_repeat(span_of_run(1), D, p->shape, p->out_stride), &e[0], 4) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    const fill_params *p;
    float *out;
} job;

static void rows(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const fill_params *p = j->p;
    const float value = (float)p->value;
    for (int64_t at = begin; at < end; at++) {
        int64_t rest = at;
        float *out = j->out;
        for (int i = D - 2; i >= 0; i--) {
            out += rest % p->shape[i] * p->out_stride[i];
            rest /= p->shape[i];
        }
        const int64_t n = p->shape[D - 1], s = p->out_stride[D - 1];
        for (int64_t i = 0; i < n; i++) out[i * s] = value;
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const fill_params *p = params;
    const job j = {p, args[0]};
    int64_t count = 1;
    for (int i = 0; i < D - 1; i++) count *= p->shape[i];
    infold_parallel(ctx, count, 1 + 131072 / (p->shape[D - 1] + 1), rows, &j);
}

const infold_op infold_op_fill = {
    .name = "fill",
    .params = "shape[6] out_stride[6] value:f",
    .args = "out",
    .params_size = sizeof(fill_params),
    .check = check,
    .run = run,
};
