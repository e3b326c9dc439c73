/* Implicit matrix product in bf16 (abi.h, infold_bf16_tile): the rows of a block of pixels are staged, all taps side by side, as
 * `terms` bf16 numbers for each float, and then meet the packed weights (pack_bf16.c) panel by panel. */
#include <string.h>

#include "drivers/conv.h"

typedef struct {
    conv_params conv;
    int64_t terms;
    int64_t block_rows;    /* pixels staged at a time */
    int64_t stage_threads; /* threads that have a stage; more do not take part */
} bf16_params;

enum { STAGE = CONV_ARGS };
enum { GAP = 32, CHUNK = 512 }; /* GAP: numbers between the stage's planes, so that rows do not fall into the same sets of the cache */

static int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

/* Numbers of a plane of one staged row. */
static int64_t plane_of(const conv_params *p) { return round_up(p->taps * p->k, INFOLD_BF16_DEPTH) + GAP; }

static int64_t panel_of(const bf16_params *p) {
    return p->terms * INFOLD_BF16_COLUMNS * round_up(p->conv.taps * p->conv.k, INFOLD_BF16_DEPTH);
}

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const bf16_params *p = params;
    const conv_params *c = &p->conv;
    int64_t rows, padded;
    const infold_status status = conv_check(c, e, kernels, &rows, &padded);
    CHECK(status == INFOLD_OK, status);
    CHECK(p->terms >= 1 && p->terms <= INFOLD_BF16_TERMS && p->stage_threads >= 1, INFOLD_EPARAM);
    CHECK(p->block_rows >= 1 && p->block_rows <= INT64_MAX / 2 && rows <= INT64_MAX / 512, INFOLD_EPARAM);
    const int64_t panels[2] = {(c->columns + INFOLD_BF16_COLUMNS - 1) / INFOLD_BF16_COLUMNS, c->groups};
    const int64_t w_stride[2] = {panel_of(p), c->w_group};
    CHECK(span_fits(span_repeat(span_of_run(panel_of(p)), 2, panels, w_stride), &e[W], 2), INFOLD_EBOUNDS);
    const int64_t staged[2] = {round_up(p->block_rows, INFOLD_BF16_ROWS), p->stage_threads}, row = p->terms * plane_of(c);
    int64_t own;
    CHECK(!__builtin_mul_overflow(staged[0], row, &own), INFOLD_EPARAM);
    const int64_t stride[2] = {row, own};
    return span_fits(span_repeat(span_of_run(row), 2, staged, stride), &e[STAGE], 2) ? INFOLD_OK : INFOLD_EBOUNDS;
}

/* One pixel's numbers under all taps, the prologue applied, the planes filled with zeros to a multiple of INFOLD_BF16_DEPTH. */
static void stage_row(const conv_job *j, const float *in, int64_t image, uint16_t *row) {
    const bf16_params *p = (const bf16_params *)j->p;
    const conv_params *c = j->p;
    const infold_bf16 *kernel = j->ctx->bf16;
    const int64_t *tap = j->args[TAP], plane = plane_of(c), depth = c->taps * c->k;
    const float *scale = j->args[IN_SCALE], *shift = j->args[IN_SHIFT];
    const int64_t map = image * c->in_map_stride;
    uint16_t *at = row;
    for (int64_t t = 0; t < c->taps; t++) {
        const float *src = in + tap[t];
        if (!scale) {
            kernel->split(c->k, src, p->terms, at, plane);
            at += c->k;
            continue;
        }
        for (int64_t k = 0; k < c->k; k += CHUNK, at += CHUNK) { /* a single tap: at the end `at` has no reader */
            float mapped[CHUNK];
            const int64_t live = c->k - k < CHUNK ? c->k - k : CHUNK;
            j->ctx->kernels->affine(1, live, src + k, 0, scale + map + k, shift + map + k, 0, 1, (float)c->in_lo, (float)c->in_hi, mapped, 0);
            kernel->split(live, mapped, p->terms, at, plane);
        }
    }
    const size_t rest = (size_t)(plane - GAP - depth) * sizeof *row;
    for (int64_t i = 0; rest && i < p->terms; i++) memset(row + i * plane + depth, 0, rest);
}

/* Staged pixels [p0, p1) times panels [q0, q1). */
static void block(const conv_job *j, const conv_group *g, const infold_epilogue *epilogue, const uint16_t *w, const uint16_t *stage,
                  int64_t p0, int64_t p1, int64_t q0, int64_t q1) {
    const bf16_params *p = (const bf16_params *)j->p;
    const conv_params *c = j->p;
    const infold_bf16 *kernel = j->ctx->bf16;
    const int64_t depth = c->taps * c->k, panel = panel_of(p), row = p->terms * plane_of(c);
    const float *r[INFOLD_BF16_ROWS];
    float *out[INFOLD_BF16_ROWS];
    infold_bf16_tile tile = {.a_row = row, .a_plane = plane_of(c), .b_plane = panel / p->terms, .terms = p->terms,
                             .depth = round_up(depth, kernel->depth_step),
                             .out = {.c = out, .r = g->res ? r : NULL, .lo = epilogue->act.lo, .hi = epilogue->act.hi}};
    infold_pixel x = pixel_at(c->n, p0);
    for (int64_t at = p0, m; at < p1; at += m) {
        const int64_t tiles = (p1 - at + kernel->mr - 1) / kernel->mr; /* of even height, as far as m_step lets them */
        m = round_up((p1 - at + tiles - 1) / tiles, kernel->m_step);
        if (m > p1 - at) m = p1 - at;
        for (int64_t i = 0; i < m; i++, pixel_next(&x, c->n)) {
            out[i] = g->out + pixel_offset(&x, c->out_stride);
            if (g->res) r[i] = g->res + pixel_offset(&x, c->res_stride);
        }
        tile.a = stage + (at - p0) * row;
        for (int64_t q = q0; q < q1; q++) {
            tile.out.column = q * INFOLD_BF16_COLUMNS;
            tile.out.n = c->columns - tile.out.column < INFOLD_BF16_COLUMNS ? c->columns - tile.out.column : INFOLD_BF16_COLUMNS;
            tile.out.bias = g->bias + tile.out.column;
            tile.b = w + q * panel;
            kernel->gemm(&tile, m);
        }
        conv_sweep(j, epilogue, m, out, q0, q1);
    }
}

static void piece(const conv_job *j, int64_t p0, int64_t p1, int64_t group, int64_t q0, int64_t q1, int64_t thread) {
    const bf16_params *p = (const bf16_params *)j->p;
    const conv_params *c = j->p;
    const conv_group g = conv_group_of(j, group);
    const infold_epilogue epilogue = conv_epilogue_of(j, group);
    const int64_t row = p->terms * plane_of(c);
    uint16_t *stage = (uint16_t *)j->args[STAGE] + thread * round_up(p->block_rows, INFOLD_BF16_ROWS) * row;
    infold_pixel x = pixel_at(c->n, p0);
    j->ctx->bf16->begin();
    for (int64_t at = p0, end; at < p1; at = end) {
        end = at + p->block_rows < p1 ? at + p->block_rows : p1;
        for (int64_t i = at; i < end; i++, pixel_next(&x, c->n))
            stage_row(j, g.in + pixel_offset(&x, c->in_stride), x.index[0], stage + (i - at) * row);
        for (int64_t q = q0, stop; q < q1; q = stop) {
            stop = q + c->panels_per_block < q1 ? q + c->panels_per_block : q1;
            block(j, &g, &epilogue, (const uint16_t *)j->args[W] + group * c->w_group, stage, at, end, q, stop);
        }
    }
    j->ctx->bf16->end();
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const bf16_params *p = params;
    infold_ctx own = *ctx;
    if (own.threads > p->stage_threads) own.threads = p->stage_threads;
    conv_job j = conv_job_of(&p->conv, args, &own, INFOLD_BF16_COLUMNS);
    j.piece = piece;
    conv_share(&j, &own, ctx->bf16->mr);
}

const infold_op infold_op_conv_bf16 = {
    .name = "conv_bf16",
    .params = CONV_PARAMS " terms block_rows stage_threads",
    .args = CONV_ARG_NAMES " stage",
    .params_size = sizeof(bf16_params),
    .check = check,
    .run = run,
};
