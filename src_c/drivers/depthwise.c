/* Depthwise convolution: tiles of a few pixels, all channels of each. The image brings its own zero border. */
#include "drivers/check.h"
#include "drivers/epilogue.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

typedef struct {
    int64_t n[4], in_stride[4], out_stride[4];
    int64_t taps, channels, w_stride;
    epilogue_params epilogue;
} depthwise_params;

enum { IN, W, BIAS, TAP, OUT, EPILOGUE };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const depthwise_params *p = params;
    CHECK(p->taps >= 1 && p->channels >= 1 && p->w_stride / kernels->lanes * kernels->lanes >= p->channels, INFOLD_EPARAM);
    CHECK(e[TAP].ptr && e[TAP].after / 8 >= p->taps, INFOLD_EMISSING);
    const int64_t taps[1] = {p->taps}, w_steps[1] = {p->w_stride};
    const infold_span run = span_of_run(p->channels);
    /* the kernel reads whole vectors of weights and bias: w_stride is rounded up to them */
    CHECK(span_fits(span_repeat(span_of_run(p->w_stride), 1, taps, w_steps), &e[W], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_of_run(p->w_stride), &e[BIAS], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_at(span_repeat(run, 4, p->n, p->in_stride), p->taps, e[TAP].ptr), &e[IN], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_repeat(run, 4, p->n, p->out_stride), &e[OUT], 4), INFOLD_EBOUNDS);
    return epilogue_check(&p->epilogue, &e[EPILOGUE], p->channels, 1, 0);
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
    const infold_epilogue epilogue = epilogue_of(&p->epilogue, j->kernels, j->args + EPILOGUE, 0);
    infold_dw_tile tile = {.a = a, .c = c, .tap = j->args[TAP], .taps = p->taps, .channels = p->channels, .w = j->args[W],
                           .w_stride = p->w_stride, .bias = j->args[BIAS],
                           .lo = epilogue.act.lo, .hi = epilogue.act.hi};
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
        epilogue_sweep(&epilogue, tile.m, c, 0, p->channels);
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const depthwise_params *p = params;
    const job j = {p, ctx->kernels, args};
    infold_parallel(ctx, pixel_count(p->n), 1 + 262144 / (p->taps * p->channels + 1), pixels, &j);
}

const infold_op infold_op_depthwise = {
    .name = "depthwise",
    .params = "n[4] in_stride[4] out_stride[4] taps channels w_stride " EPILOGUE_PARAMS,
    .args = "in w bias tap out " EPILOGUE_ARGS,
    .params_size = sizeof(depthwise_params),
    .check = check,
    .run = run,
};
