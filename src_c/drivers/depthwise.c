/* Depthwise convolution: tiles of a few pixels, all channels of each. The image brings its own zero border. */
#include "drivers/activation.h"
#include "drivers/check.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

typedef struct {
    int64_t n[4], in_stride[4], out_stride[4];
    int64_t taps, channels, w_stride;
    int64_t act;
    double a, b;
} depthwise_params;

enum { IN, W, BIAS, TAP, OUT, SLOPE };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const depthwise_params *p = params;
    CHECK(p->taps >= 1 && p->channels >= 1 && p->w_stride / kernels->lanes * kernels->lanes >= p->channels, INFOLD_EPARAM);
    CHECK(p->act >= 0 && p->act < INFOLD_ACT_COUNT, INFOLD_EPARAM);
    CHECK(e[TAP].ptr && e[TAP].after / 8 >= p->taps, INFOLD_EMISSING);
    const int64_t taps[1] = {p->taps}, w_steps[1] = {p->w_stride};
    const infold_span run = span_of_run(p->channels);
    /* the kernel reads whole vectors of weights and bias: w_stride is rounded up to them */
    CHECK(span_fits(span_repeat(span_of_run(p->w_stride), 1, taps, w_steps), &e[W], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_of_run(p->w_stride), &e[BIAS], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_at(span_repeat(run, 4, p->n, p->in_stride), p->taps, e[TAP].ptr), &e[IN], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_repeat(run, 4, p->n, p->out_stride), &e[OUT], 4), INFOLD_EBOUNDS);
    if (p->act == INFOLD_PRELU) CHECK(span_fits(run, &e[SLOPE], 4), INFOLD_EBOUNDS);
    return INFOLD_OK;
}

typedef struct {
    const depthwise_params *p;
    const infold_kernels *kernels;
    void *const *args;
} job;

static void pixels(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const depthwise_params *p = j->p;
    const float *a[INFOLD_DW_MR];
    float *c[INFOLD_DW_MR];
    const infold_activation act = activation_of(p->act, p->a, p->b);
    const bool dense = p->out_stride[3] == p->channels && p->act != INFOLD_PRELU; /* one run of several pixels */
    infold_dw_tile tile = {.a = a, .c = c, .tap = j->args[TAP], .taps = p->taps, .channels = p->channels, .w = j->args[W],
                           .w_stride = p->w_stride, .bias = j->args[BIAS],
                           .lo = act.lo, .hi = act.hi};
    infold_pixel x = pixel_at(p->n, begin);
    for (int64_t at = begin; at < end; at += tile.m) {
        tile.m = end - at < INFOLD_DW_MR ? end - at : INFOLD_DW_MR;
        const bool row = x.index[3] + tile.m < p->n[3]; /* all in one row of the image: evenly spaced */
        if (row) {
            const float *in = (const float *)j->args[IN] + pixel_offset(&x, p->in_stride);
            float *out = (float *)j->args[OUT] + pixel_offset(&x, p->out_stride);
            for (int64_t i = 0; i < tile.m; i++) {
                a[i] = in + i * p->in_stride[3];
                c[i] = out + i * p->out_stride[3];
            }
            x.index[3] += tile.m;
        } else {
            for (int64_t i = 0; i < tile.m; i++, pixel_next(&x, p->n)) {
                a[i] = (const float *)j->args[IN] + pixel_offset(&x, p->in_stride);
                c[i] = (float *)j->args[OUT] + pixel_offset(&x, p->out_stride);
            }
        }
        j->kernels->depthwise(&tile);
        if (act.late && dense && row)
            j->kernels->act((infold_act)p->act, tile.m * p->channels, c[0], c[0], NULL, (float)p->a, (float)p->b);
        else if (act.late)
            for (int64_t i = 0; i < tile.m; i++)
                j->kernels->act((infold_act)p->act, p->channels, c[i], c[i], j->args[SLOPE], (float)p->a, (float)p->b);
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const depthwise_params *p = params;
    const job j = {p, ctx->kernels, args};
    infold_parallel(ctx, pixel_count(p->n), 1 + 262144 / (p->taps * p->channels + 1), pixels, &j);
}

const infold_op infold_op_depthwise = {
    .name = "depthwise",
    .params = "n[4] in_stride[4] out_stride[4] taps channels w_stride act a:f b:f",
    .args = "in w bias tap out slope?",
    .params_size = sizeof(depthwise_params),
    .check = check,
    .run = run,
};
