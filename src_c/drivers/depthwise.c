/* Depthwise convolution: tiles of a few pixels, a block of channels of each. The image brings its own zero border. */
#include "drivers/check.h"
#include "drivers/epilogue.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

typedef struct {
    int64_t n[4], in_stride[4], out_stride[4];
    int64_t taps, channels, w_stride;
    int64_t run;   /* taps that lie in_stride[3] apart and come together: the kernel's width where the stride is 1, or 1 */
    int64_t block; /* channels that pass over all pixels before the next ones do: the rows of a window stay in the first-level cache */
    epilogue_params epilogue;
} depthwise_params;

enum { IN, W, BIAS, TAP, OUT, EPILOGUE };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const depthwise_params *p = params;
    CHECK(p->taps >= 1 && p->channels >= 1 && p->block >= 1 && p->block % kernels->lanes == 0 && p->w_stride / kernels->lanes * kernels->lanes >= p->channels, INFOLD_EPARAM);
    CHECK(e[TAP].ptr && e[TAP].after / 8 >= p->taps, INFOLD_EMISSING);
    CHECK(p->run >= 1 && p->taps % p->run == 0, INFOLD_EPARAM);
    const int64_t *tap = e[TAP].ptr;
    for (int64_t t = 0, step; t < p->taps; t++)
        CHECK(t % p->run == 0 || (!__builtin_sub_overflow(tap[t], tap[t - 1], &step) && step == p->in_stride[3]), INFOLD_EPARAM);
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

/* Pixels [begin, end) of channels [first, first + channels). */
static void block(const job *j, int64_t begin, int64_t end, int64_t first, int64_t channels) {
    const depthwise_params *p = j->p;
    const float *source = (const float *)j->args[IN] + first;
    float *target = (float *)j->args[OUT] + first;
    float *c[INFOLD_DW_MR];
    const infold_epilogue epilogue = epilogue_of(&p->epilogue, j->kernels, j->args + EPILOGUE, first);
    infold_dw_tile tile = {.in_step = p->in_stride[3], .out_step = p->out_stride[3], .tap = j->args[TAP], .taps = p->taps, .run = p->run,
                           .channels = channels, .w = (const float *)j->args[W] + first, .w_stride = p->w_stride,
                           .bias = (const float *)j->args[BIAS] + first, .lo = epilogue.act.lo, .hi = epilogue.act.hi};
    infold_pixel x = pixel_at(p->n, begin);
    for (int64_t at = begin; at < end; at += tile.m) {
        const int64_t left = end - at < p->n[3] - x.index[3] ? end - at : p->n[3] - x.index[3]; /* of this row */
        const int64_t tiles = (left + INFOLD_DW_MR - 1) / INFOLD_DW_MR;
        tile.m = (left + tiles - 1) / tiles;
        tile.in = source + pixel_offset(&x, p->in_stride);
        tile.out = target + pixel_offset(&x, p->out_stride);
        j->kernels->depthwise(&tile);
        for (int64_t i = 0; i < tile.m; i++) c[i] = tile.out + i * tile.out_step;
        epilogue_sweep(&epilogue, tile.m, c, 0, channels);
        x.index[3] += tile.m - 1;
        pixel_next(&x, p->n);
    }
}

static void pixels(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const int64_t channels = j->p->channels, step = j->p->block;
    for (int64_t first = 0; first < channels; first += step)
        block(j, begin, end, first, step < channels - first ? step : channels - first);
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const depthwise_params *p = params;
    const job j = {p, ctx->kernels, args};
    infold_parallel(ctx, pixel_count(p->n), 1 + 262144 / (p->taps * p->channels + 1), pixels, &j);
}

const infold_op infold_op_depthwise = {
    .name = "depthwise",
    .params = "n[4] in_stride[4] out_stride[4] taps channels w_stride run block " EPILOGUE_PARAMS,
    .args = "in w bias tap out " EPILOGUE_ARGS,
    .params_size = sizeof(depthwise_params),
    .check = check,
    .run = run,
};
