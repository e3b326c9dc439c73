/* Implicit matrix product in float32: Conv 1/2/3-D, grouped, each phase of a ConvTranspose, Gemm and MatMul. */
#include "drivers/ahead.h"

typedef struct {
    conv_params conv;
    int64_t chunk; /* products in one chain of sums */
} direct_params;

enum { MAX_STAGED_K = 2304, STAGE_ROW = MAX_STAGED_K + 16 }; /* the stage is on the stack: 127 KiB */

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const direct_params *direct = params;
    const conv_params *p = &direct->conv;
    int64_t rows, padded, size;
    CHECK(direct->chunk >= 1, INFOLD_EPARAM);
    const infold_status status = conv_check(p, (conv_bytes){4, 4, 4}, e, kernels, &rows, &padded);
    CHECK(status == INFOLD_OK, status);
    CHECK(!__builtin_mul_overflow(rows, padded, &size), INFOLD_EPARAM);
    CHECK(span_fits(span_repeat(span_of_run(size), 1, &p->groups, &p->w_group), &e[W], 4), INFOLD_EBOUNDS);
    CHECK(!arg_given(&e[IN_SCALE]) || p->k <= MAX_STAGED_K, INFOLD_EPARAM);
    return INFOLD_OK;
}

/* Replace the tile's row pointers by rows of the stage that have gone through the prologue. */
static void prologue(const conv_job *j, int64_t m, const float **a, const int64_t *map, float *stage) {
    const conv_params *p = j->p;
    const int64_t offset = *(const int64_t *)j->args[TAP];
    for (int64_t i = 0; i < m; i++) {
        float *row = stage + i * STAGE_ROW;
        j->ctx->kernels->affine(1, p->k, a[i] + offset, 0, (const float *)j->args[IN_SCALE] + map[i],
                           (const float *)j->args[IN_SHIFT] + map[i], 0, 1, (float)p->in_lo, (float)p->in_hi, row, 0);
        a[i] = row;
    }
}

/* All pixels [p0, p1) times panels [j0, j1) of one group. */
static void block(const conv_job *j, int64_t p0, int64_t p1, int64_t group, int64_t j0, int64_t j1, int64_t thread) {
    (void)thread;
    const conv_params *p = j->p;
    const infold_kernels *kn = j->ctx->kernels;
    const conv_group g = conv_group_of(j, group);
    const float *w = (const float *)j->args[W] + group * p->w_group;
    const int64_t mr = kn->mr, nr = kn->nr, rows = p->taps * p->k;
    const float *a[INFOLD_MAX_MR], *r[INFOLD_MAX_MR];
    float *c[INFOLD_MAX_MR];
    int64_t map[INFOLD_MAX_MR];
    float stage[INFOLD_MAX_MR * STAGE_ROW];
    const infold_epilogue epilogue = conv_epilogue_of(j, group, 0);
    infold_tile tile = {.a = a, .c = c, .r = g.res ? r : NULL, .tap = j->args[TAP], .taps = p->taps, .k = p->k,
                        .chunk = ((const direct_params *)p)->chunk, .lo = epilogue.act.lo, .hi = epilogue.act.hi};
    const ahead soon = ahead_for(j, tile.chunk, j1 - j0);
    const int64_t at_row = 0;
    infold_pixel x = pixel_at(p->n, p0);
    for (int64_t at = p0, m; at < p1; at += m) {
        const int64_t tiles = (p1 - at + mr - 1) / mr; /* of even height: a low one would wait for its weights */
        m = (p1 - at + tiles - 1) / tiles;
        for (int64_t i = 0, run; i < m; i += run) { /* with few products a tile, what is done for each pixel counts */
            const float *in = g.in + pixel_offset(&x, p->in_stride), *res = g.res ? g.res + pixel_offset(&x, p->res_stride) : NULL;
            float *out = g.out + pixel_offset(&x, p->out_stride);
            const int64_t of_image = j->args[IN_SCALE] ? x.index[0] * p->in_map_stride : 0;
            run = pixel_run(&x, p->n, m - i);
            for (int64_t next = 0; next < run; next++) {
                a[i + next] = in + next * p->in_stride[3];
                c[i + next] = out + next * p->out_stride[3];
                map[i + next] = of_image;
                if (res) r[i + next] = res + next * p->res_stride[3];
            }
        }
        const float *in = a[0] + ((const int64_t *)j->args[TAP])[p->taps - 1];
        if (j->args[IN_SCALE]) {
            prologue(j, m, a, map, stage);
            tile.tap = &at_row;
        }
        tile.column = j0 * nr;
        ahead_of_tile(&soon, &tile, in, m, p1 - at);
        for (int64_t q = j0; q < j1; q++) {
            tile.column = q * nr;
            tile.n = p->columns - tile.column < nr ? p->columns - tile.column : nr;
            tile.b = w + q * nr * rows;
            tile.bias = g.bias + tile.column;
            kn->gemm[tile.n > kn->lanes][m - 1](&tile);
            ahead_of_panel(&tile);
        }
        conv_sweep(j, &epilogue, m, c, j0, j1);
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    conv_job j = conv_job_of(params, args, ctx, ctx->kernels->nr);
    j.piece = block;
    conv_share(&j, ctx, ctx->kernels->mr, 0);
}

const infold_op infold_op_conv = {
    .name = "conv",
    .params = CONV_PARAMS " chunk",
    .args = CONV_ARG_NAMES,
    .params_size = sizeof(direct_params),
    .check = check,
    .run = run,
};
