/* Softmax and LogSoftmax over contiguous rows. */
#include "drivers/check.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

typedef struct {
    int64_t n[4], in_stride[4], out_stride[4]; /* the rows */
    int64_t length, log;
} softmax_params;

enum { IN, OUT };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const softmax_params *p = params;
    const infold_span row = span_of_run(p->length);
    CHECK(span_fits(span_repeat(row, 4, p->n, p->in_stride), &e[IN], 4), INFOLD_EBOUNDS);
    return span_fits(span_repeat(row, 4, p->n, p->out_stride), &e[OUT], 4) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    const softmax_params *p;
    const infold_kernels *kernels;
    void *const *args;
} job;

static void rows(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const softmax_params *p = j->p;
    infold_pixel x = pixel_at(p->n, begin);
    for (int64_t at = begin; at < end; at++, pixel_next(&x, p->n))
        j->kernels->softmax(p->length, (const float *)j->args[IN] + pixel_offset(&x, p->in_stride),
                            (float *)j->args[OUT] + pixel_offset(&x, p->out_stride), p->log);
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const softmax_params *p = params;
    const job j = {p, ctx->kernels, args};
    if (p->length > 0) infold_parallel(ctx, pixel_count(p->n), 1 + 8192 / (p->length + 1), rows, &j);
}

const infold_op infold_op_softmax = {
    .name = "softmax",
    .params = "n[4] in_stride[4] out_stride[4] length log",
    .args = "in out",
    .params_size = sizeof(softmax_params),
    .check = check,
    .run = run,
};
