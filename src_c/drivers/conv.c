/* Implicit matrix product: Conv 1/2/3-D, grouped, each phase of a ConvTranspose, Gemm and MatMul are all
 *     out[p][:] = epilogue(sum over taps t of in[p + tap[t]][0..k) * w[t] + bias + residual[p])
 * over a 4-D space of output pixels p. Images bring their own zero border, so no tap needs a test. */
#include "drivers/check.h"
#include "drivers/epilogue.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

typedef struct {
    int64_t n[4];                                    /* output pixels: batch, depth, height, width */
    int64_t in_stride[4], out_stride[4], res_stride[4]; /* elements per step of n; in_stride includes the conv's stride */
    int64_t taps, k;                                 /* k: contiguous elements under each tap */
    int64_t groups, columns;                         /* columns: output channels of one group */
    int64_t in_group, out_group, res_group;          /* elements between the groups' channels (or between a batch's matrices) */
    int64_t w_group, bias_group;                     /* elements between the groups' packed panels and biases */
    int64_t panels_per_block;                        /* panels kept in L2 while all pixels pass by */
    epilogue_params epilogue;
    double in_lo, in_hi;   /* the prologue's clamp */
    int64_t in_map_stride; /* elements from one batch index's prologue map to the next's; 0: one for all */
} conv_params;

enum { GRAIN = 1000000 }; /* multiply-adds that are worth waking a thread for: some 10 microseconds */

/* IN_SCALE and IN_SHIFT make a prologue, in = clamp(in * in_scale + in_shift) per channel: a BatchNorm in front, or the scales of a
 * squeeze-and-excitation, applied to a tile's rows on their way in. Only for one tap: under several, every row would be computed once per tap. */
enum { IN, W, BIAS, TAP, OUT, RES, IN_SCALE, IN_SHIFT, EPILOGUE };
enum { MAX_STAGED_K = 2304, STAGE_ROW = MAX_STAGED_K + 16 }; /* the stage is on the stack: 127 KiB */

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const conv_params *p = params;
    CHECK(p->taps >= 1 && p->k >= 0 && p->groups >= 1 && p->columns >= 1 && p->panels_per_block >= 1, INFOLD_EPARAM);
    CHECK(e[TAP].ptr && e[TAP].after / 8 >= p->taps, INFOLD_EMISSING);
    int64_t padded, size, rows;
    CHECK(p->columns <= INT64_MAX / 2 && p->panels_per_block <= INT64_MAX / 2, INFOLD_EPARAM);
    padded = (p->columns + kernels->lanes - 1) / kernels->lanes * kernels->lanes;
    CHECK(!__builtin_mul_overflow(p->taps, p->k, &rows) && !__builtin_mul_overflow(rows, padded, &size), INFOLD_EPARAM);
    const int64_t groups[1] = {p->groups};
    const infold_span in = span_repeat(span_repeat(span_of_run(p->k), 4, p->n, p->in_stride), 1, groups, &p->in_group);
    CHECK(span_fits(span_at(in, p->taps, e[TAP].ptr), &e[IN], 4), INFOLD_EBOUNDS);
    /* the kernel reads whole vectors of weights and bias */
    CHECK(span_fits(span_repeat(span_of_run(size), 1, groups, &p->w_group), &e[W], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_repeat(span_of_run(padded), 1, groups, &p->bias_group), &e[BIAS], 4), INFOLD_EBOUNDS);
    const infold_span run = span_of_run(p->columns);
    CHECK(span_fits(span_repeat(span_repeat(run, 4, p->n, p->out_stride), 1, groups, &p->out_group), &e[OUT], 4), INFOLD_EBOUNDS);
    if (arg_given(&e[RES]))
        CHECK(span_fits(span_repeat(span_repeat(run, 4, p->n, p->res_stride), 1, groups, &p->res_group), &e[RES], 4), INFOLD_EBOUNDS);
    if (arg_given(&e[IN_SCALE]) || arg_given(&e[IN_SHIFT])) {
        CHECK(p->taps == 1 && p->groups == 1 && p->k <= MAX_STAGED_K, INFOLD_EPARAM);
        const infold_span map = span_repeat(span_of_run(p->k), 1, p->n, &p->in_map_stride);
        CHECK(span_fits(map, &e[IN_SCALE], 4) && span_fits(map, &e[IN_SHIFT], 4), INFOLD_EBOUNDS);
    }
    return epilogue_check(&p->epilogue, &e[EPILOGUE], p->columns, p->groups, p->bias_group);
}

typedef struct {
    const conv_params *p;
    const infold_kernels *kernels;
    void *const *args;
    int64_t pixels, panels; /* panels of one group */
} job;

/* Replace the tile's row pointers by rows of the stage that have gone through the prologue. */
static void prologue(const job *j, int64_t m, const float **a, const int64_t *map, float *stage) {
    const conv_params *p = j->p;
    const int64_t offset = *(const int64_t *)j->args[TAP];
    for (int64_t i = 0; i < m; i++) {
        float *row = stage + i * STAGE_ROW;
        j->kernels->affine(1, p->k, a[i] + offset, 0, (const float *)j->args[IN_SCALE] + map[i],
                           (const float *)j->args[IN_SHIFT] + map[i], 0, 1, (float)p->in_lo, (float)p->in_hi, row, 0);
        a[i] = row;
    }
}

/* All pixels [p0, p1) times panels [j0, j1) of one group. */
static void block(const job *j, int64_t p0, int64_t p1, int64_t group, int64_t j0, int64_t j1) {
    const conv_params *p = j->p;
    const infold_kernels *kn = j->kernels;
    const float *in = (const float *)j->args[IN] + group * p->in_group;
    const float *w = (const float *)j->args[W] + group * p->w_group;
    const float *bias = (const float *)j->args[BIAS] + group * p->bias_group;
    float *out = (float *)j->args[OUT] + group * p->out_group;
    const float *res = j->args[RES];
    if (res) res += group * p->res_group;
    const int64_t mr = kn->mr, nr = kn->nr, rows = p->taps * p->k;
    const float *a[INFOLD_MAX_MR], *r[INFOLD_MAX_MR];
    float *c[INFOLD_MAX_MR];
    int64_t map[INFOLD_MAX_MR];
    float stage[INFOLD_MAX_MR * STAGE_ROW];
    const infold_epilogue epilogue = epilogue_of(&p->epilogue, kn, j->args + EPILOGUE, group * p->bias_group);
    const int64_t first = j0 * nr, live = (j1 * nr < p->columns ? j1 * nr : p->columns) - first;
    infold_tile tile = {.a = a, .c = c, .r = res ? r : NULL, .tap = j->args[TAP], .taps = p->taps, .k = p->k,
                        .lo = epilogue.act.lo, .hi = epilogue.act.hi};
    const int64_t at_row = 0;
    infold_pixel x = pixel_at(p->n, p0);
    for (int64_t at = p0, m; at < p1; at += m) {
        const int64_t tiles = (p1 - at + mr - 1) / mr; /* of even height: a low one would wait for its weights */
        m = (p1 - at + tiles - 1) / tiles;
        for (int64_t i = 0; i < m; i++, pixel_next(&x, p->n)) {
            a[i] = in + pixel_offset(&x, p->in_stride);
            c[i] = out + pixel_offset(&x, p->out_stride);
            map[i] = x.index[0] * p->in_map_stride;
            if (res) r[i] = res + pixel_offset(&x, p->res_stride);
        }
        if (j->args[IN_SCALE]) {
            prologue(j, m, a, map, stage);
            tile.tap = &at_row;
        }
        for (int64_t q = j0; q < j1; q++) {
            tile.column = q * nr;
            tile.n = p->columns - tile.column < nr ? p->columns - tile.column : nr;
            tile.b = w + q * nr * rows;
            tile.bias = bias + tile.column;
            kn->gemm[tile.n > kn->lanes][m - 1](&tile);
        }
        epilogue_sweep(&epilogue, m, c, first, live);
    }
}

static void by_pixels(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    for (int64_t g = 0; g < j->p->groups; g++)
        for (int64_t q = 0; q < j->panels; q += j->p->panels_per_block) {
            const int64_t q1 = q + j->p->panels_per_block;
            block(j, begin, end, g, q, q1 < j->panels ? q1 : j->panels);
        }
}

/* Few pixels, many channels: threads take panels, counted across the groups. */
static void by_panels(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    for (int64_t at = begin; at < end;) {
        const int64_t g = at / j->panels, q = at % j->panels;
        int64_t q1 = q + j->p->panels_per_block;
        if (q1 > j->panels) q1 = j->panels;
        if (q1 > q + end - at) q1 = q + end - at;
        block(j, 0, j->pixels, g, q, q1);
        at += q1 - q;
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const conv_params *p = params;
    const int64_t nr = ctx->kernels->nr, mr = ctx->kernels->mr;
    const job j = {p, ctx->kernels, args, pixel_count(p->n), (p->columns + nr - 1) / nr};
    if (j.pixels == 0) return;
    const double depth = (double)p->taps * (double)p->k; /* multiply-adds of one number */
    const double pixel = depth * (double)(p->columns * p->groups), panel = depth * (double)j.pixels * (double)nr;
    if (j.pixels >= 4 * mr * ctx->threads || j.pixels >= j.panels * p->groups * mr)
        infold_parallel(ctx, j.pixels, 1 + (int64_t)(GRAIN / (pixel + 1)), by_pixels, &j);
    else
        infold_parallel(ctx, j.panels * p->groups, 1 + (int64_t)(GRAIN / (panel + 1)), by_panels, &j);
}

const infold_op infold_op_conv = {
    .name = "conv",
    .params = "n[4] in_stride[4] out_stride[4] res_stride[4] taps k groups columns in_group out_group "
              "res_group w_group bias_group panels_per_block " EPILOGUE_PARAMS " in_lo:f in_hi:f in_map_stride",
    .args = "in w bias tap out res? in_scale? in_shift? " EPILOGUE_ARGS,
    .params_size = sizeof(conv_params),
    .check = check,
    .run = run,
};
