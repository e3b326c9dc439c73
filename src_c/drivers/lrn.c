/* LRN: every pixel's channels are divided by a power of their neighbourhood's mean square. */
#include "drivers/check.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

typedef struct {
    int64_t n[4], in_stride[4], out_stride[4]; /* pixels */
    int64_t channels, before, after;           /* neighbours counted on each side */
    double scale, bias, beta;
} lrn_params;

enum { IN, OUT };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const lrn_params *p = params;
    CHECK(p->channels >= 1, INFOLD_EPARAM); /* without elements nothing bounds the strides */
    CHECK(p->before >= 0 && p->before <= INFOLD_LRN_REACH && p->after >= 0 && p->after <= INFOLD_LRN_REACH, INFOLD_EPARAM);
    const infold_span run = span_of_run(p->channels);
    CHECK(span_fits(span_repeat(run, 4, p->n, p->in_stride), &e[IN], 4), INFOLD_EBOUNDS);
    const infold_span out = span_repeat(run, 4, p->n, p->out_stride);
    return span_fits(out, &e[OUT], 4) && work_fits(out, p->before + p->after + 1) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    const lrn_params *p;
    const infold_kernels *kernels;
    void *const *args;
} job;

static void pixels(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const lrn_params *p = j->p;
    infold_pixel x = pixel_at(p->n, begin);
    for (int64_t at = begin; at < end; at++, pixel_next(&x, p->n))
        j->kernels->lrn(p->channels, (const float *)j->args[IN] + pixel_offset(&x, p->in_stride),
                        (float *)j->args[OUT] + pixel_offset(&x, p->out_stride), p->before, p->after, (float)p->scale,
                        (float)p->bias, (float)p->beta);
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const lrn_params *p = params;
    const job j = {p, ctx->kernels, args};
    infold_parallel(ctx, pixel_count(p->n), 1 + 8192 / (p->channels + 1), pixels, &j);
}

const infold_op infold_op_lrn = {
    .name = "lrn",
    .params = "n[4] in_stride[4] out_stride[4] channels before after scale:f bias:f beta:f",
    .args = "in out",
    .params_size = sizeof(lrn_params),
    .check = check,
    .run = run,
};
