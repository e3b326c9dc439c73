/* Implicit matrix product in bf16 (abi.h, infold_bf16_tile): the rows of a block of pixels are staged, all taps side by side, as
 * `terms` bf16 numbers for each float, and then meet the packed weights (pack_bf16.c) panel by panel. An image of bf16 numbers
 * needs no stage where the kernel takes its rows as they lie. */
#include <string.h>

#include "drivers/conv.h"

typedef struct {
    conv_params conv;
    int64_t terms;
    int64_t block_rows;    /* pixels staged at a time */
    int64_t stage_threads; /* threads that have a stage; more do not take part */
    int64_t depth;         /* the most numbers in a block of depth, for kernels that sum in blocks; all of them with most terms */
    int64_t plane;         /* numbers from plane to plane of a staged row */
    int64_t in_half, out_half, res_half; /* whether the image holds bf16 numbers, not float32 */
} bf16_params;

enum { STAGE = CONV_ARGS };
enum { CHUNK = 512, DEALT = 16, SWEPT = 4, SUMS = 2 * INFOLD_BF16_ROWS * INFOLD_BF16_COLUMNS };

static int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

/* What the kernels sum over, rounded up. */
static int64_t depth_of(const conv_params *p) { return round_up(p->taps * p->k, INFOLD_BF16_DEPTH); }

static int64_t plane_of(const conv_params *p) { return ((const bf16_params *)p)->plane; }

static int64_t panel_of(const bf16_params *p) { return p->terms * INFOLD_BF16_COLUMNS * depth_of(&p->conv); }

/* bf16 numbers in whose room a thread keeps a tile's sums of a block of panels, behind its stage. */
static int64_t sums_of(const bf16_params *p) {
    const int64_t panels = (p->conv.columns + INFOLD_BF16_COLUMNS - 1) / INFOLD_BF16_COLUMNS;
    return p->depth < depth_of(&p->conv) ? SUMS * (p->conv.panels_per_block < panels ? p->conv.panels_per_block : panels) : 0;
}

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const bf16_params *p = params;
    const conv_params *c = &p->conv;
    int64_t rows, padded;
    CHECK((p->in_half | p->out_half | p->res_half | 1) == 1, INFOLD_EPARAM);
    const conv_bytes bytes = {4 - 2 * p->in_half, 4 - 2 * p->out_half, 4 - 2 * p->res_half};
    const infold_status status = conv_check(c, bytes, e, kernels, &rows, &padded);
    CHECK(status == INFOLD_OK, status);
    CHECK(p->terms >= 1 && p->terms <= INFOLD_BF16_TERMS && p->stage_threads >= 1, INFOLD_EPARAM);
    CHECK(p->block_rows >= 1 && p->block_rows <= INT64_MAX / 2 && rows <= INT64_MAX / 512, INFOLD_EPARAM);
    CHECK(p->plane >= depth_of(c) + DEALT && p->plane <= INT64_MAX / 4, INFOLD_EPARAM);
    const bool blocks = p->depth >= INFOLD_BF16_BLOCK && p->depth % INFOLD_BF16_BLOCK == 0 && p->terms < INFOLD_BF16_TERMS;
    CHECK(blocks || p->depth >= depth_of(c), INFOLD_EPARAM);
    const int64_t panels[2] = {(c->columns + INFOLD_BF16_COLUMNS - 1) / INFOLD_BF16_COLUMNS, c->groups};
    const int64_t w_stride[2] = {panel_of(p), c->w_group};
    CHECK(span_fits(span_repeat(span_of_run(panel_of(p)), 2, panels, w_stride), &e[W], 2), INFOLD_EBOUNDS);
    int64_t own;
    const int64_t staged = round_up(p->block_rows, INFOLD_BF16_ROWS), row = p->terms * p->plane;
    CHECK(!__builtin_mul_overflow(staged, row, &own) && !__builtin_add_overflow(own, sums_of(p), &own), INFOLD_EPARAM);
    return span_fits(span_repeat(span_of_run(own), 1, &p->stage_threads, &own), &e[STAGE], 2) ? INFOLD_OK : INFOLD_EBOUNDS;
}

/* An image of float32 or of bf16 numbers, from one element on. */
typedef struct {
    const void *at;
    bool half;
} image;

static const void *element(image x, int64_t i) {
    return x.half ? (const void *)((const uint16_t *)x.at + i) : (const void *)((const float *)x.at + i);
}

static bool as_it_lies(const conv_job *j) {
    const bf16_params *p = (const bf16_params *)j->p;
    const infold_bf16 *kernel = j->ctx->bf16;
    return p->in_half && p->terms == 1 && kernel->anywhere && p->conv.k % kernel->depth_step == 0 && !j->args[IN_SCALE];
}

/* n numbers of one pixel as the planes of a staged row, the prologue applied; map: its first number for this image. */
static void stage_run(const conv_job *j, image in, int64_t n, int64_t map, uint16_t *at) {
    const bf16_params *p = (const bf16_params *)j->p;
    const conv_params *c = j->p;
    const float *scale = j->args[IN_SCALE], *shift = j->args[IN_SHIFT];
    float wide[CHUNK], mapped[CHUNK];
    if (in.half && p->terms == 1 && !scale) {
        memcpy(at, in.at, (size_t)n * sizeof *at);
        return;
    }
    for (int64_t i = 0, live; i < n; i += live) {
        live = !scale && !in.half ? n : n - i < CHUNK ? n - i : CHUNK;
        const float *x = in.half ? wide : (const float *)in.at + i;
        if (in.half) j->ctx->bf16->widen(live, (const uint16_t *)in.at + i, wide);
        if (scale) {
            const float lo = (float)c->in_lo, hi = (float)c->in_hi;
            j->ctx->kernels->affine(1, live, x, 0, scale + map + i, shift + map + i, 0, 1, lo, hi, mapped, 0);
            x = mapped;
        }
        j->ctx->bf16->split(live, x, p->terms, at + i, plane_of(c));
    }
}

/* One pixel's numbers under all taps, the planes filled with zeros to a multiple of INFOLD_BF16_DEPTH. */
static void stage_row(const conv_job *j, image in, int64_t map, uint16_t *row) {
    const bf16_params *p = (const bf16_params *)j->p;
    const conv_params *c = j->p;
    const int64_t *tap = j->args[TAP], plane = plane_of(c), depth = c->taps * c->k;
    for (int64_t t = 0; t < c->taps; t++) stage_run(j, (image){element(in, tap[t]), in.half}, c->k, map, row + t * c->k);
    const size_t rest = (size_t)(depth_of(c) - depth) * sizeof *row;
    for (int64_t i = 0; rest && i < p->terms; i++) memset(row + i * plane + depth, 0, rest);
}

/* Whether neighbouring windows share what is rounded: small taps of a float32 image, no further apart than they are long. */
static bool overlap(const conv_job *j) {
    const bf16_params *p = (const bf16_params *)j->p;
    const conv_params *c = j->p;
    return p->terms == 1 && !p->in_half && !j->args[IN_SCALE] && c->k <= CHUNK && c->in_stride[3] > 0 && c->in_stride[3] < c->k;
}

/* Neighbouring pixels from `in` on: what lies under a tap of all of them is rounded once, then dealt out, DEALT numbers at a time.
 * What that writes beyond a tap's end is overwritten by the next tap or the zeros, or lies behind the plane's depth. */
static void deal_rows(const conv_job *j, const float *in, int64_t pixels, uint16_t *row) {
    const conv_params *c = j->p;
    const int64_t *tap = j->args[TAP], plane = plane_of(c), depth = c->taps * c->k, step = c->in_stride[3];
    uint16_t rounded[2 * CHUNK + DEALT] = {0};
    for (int64_t at = 0, count; at < pixels; at += count, row += count * plane) {
        const int64_t most = (2 * CHUNK - c->k) / step + 1;
        count = pixels - at < most ? pixels - at : most;
        for (int64_t t = 0; t < c->taps; t++) {
            j->ctx->bf16->split((count - 1) * step + c->k, in + tap[t] + at * step, 1, rounded, 0);
            for (int64_t i = 0; i < count; i++)
                for (int64_t k = 0; k < c->k; k += DEALT)
                    memcpy(row + i * plane + t * c->k + k, rounded + i * step + k, DEALT * sizeof *row);
        }
        for (int64_t i = 0; i < count; i++) memset(row + i * plane + depth, 0, (size_t)(depth_of(c) - depth) * sizeof *row);
    }
}

/* Neighbouring bf16 pixels from `in` on under a single tap, the prologue applied. */
static void map_rows(const conv_job *j, const uint16_t *in, int64_t pixels, int64_t map, uint16_t *row) {
    const conv_params *c = j->p;
    const int64_t *tap = j->args[TAP], plane = plane_of(c);
    j->ctx->bf16->affine(pixels, c->k, in + tap[0], c->in_stride[3], (const float *)j->args[IN_SCALE] + map,
                         (const float *)j->args[IN_SHIFT] + map, 0, 1, (float)c->in_lo, (float)c->in_hi, row, plane);
    const size_t rest = (size_t)(depth_of(c) - c->k) * sizeof *row;
    for (int64_t i = 0; rest && i < pixels; i++) memset(row + i * plane + c->k, 0, rest);
}

/* Pixels [p0, p1), staged one behind the other. */
static void stage_rows(const conv_job *j, image in, int64_t p0, int64_t p1, uint16_t *row) {
    const bf16_params *p = (const bf16_params *)j->p;
    const conv_params *c = j->p;
    infold_pixel x = pixel_at(c->n, p0);
    for (int64_t at = p0; at < p1;) {
        const int64_t first = pixel_offset(&x, c->in_stride), map = x.index[0] * c->in_map_stride;
        const int64_t run = pixel_run(&x, c->n, p1 - at);
        const bool mapped = in.half && p->terms == 1 && j->args[IN_SCALE];
        if (mapped) map_rows(j, (const uint16_t *)in.at + first, run, map, row);
        else if (overlap(j)) deal_rows(j, (const float *)in.at + first, run, row);
        else
            for (int64_t i = 0; i < run; i++)
                stage_row(j, (image){element(in, first + i * c->in_stride[3]), in.half}, map, row + i * p->terms * plane_of(c));
        row += run * p->terms * plane_of(c);
        at += run;
    }
}

/* The rows of a tile. */
typedef struct {
    const uint16_t *a[INFOLD_BF16_ROWS];
    float *c[INFOLD_BF16_ROWS];
    const float *r[INFOLD_BF16_ROWS];
    uint16_t *c16[INFOLD_BF16_ROWS];
    const uint16_t *r16[INFOLD_BF16_ROWS];
} tile_rows;

/* The operands of one group. */
typedef struct {
    image in, res; /* res.at may be NULL */
    void *out;
    const float *bias;
    const uint16_t *w;
} operands;

static operands operands_of(const conv_job *j, int64_t group) {
    const bf16_params *p = (const bf16_params *)j->p;
    const conv_params *c = j->p;
    const image in = {j->args[IN], p->in_half}, res = {j->args[RES], p->res_half}, out = {j->args[OUT], p->out_half};
    return (operands){.in = {element(in, group * c->in_group), in.half},
                      .res = {res.at ? element(res, group * c->res_group) : NULL, res.half},
                      .out = (void *)element(out, group * c->out_group),
                      .bias = (const float *)j->args[BIAS] + group * c->bias_group,
                      .w = (const uint16_t *)j->args[W] + group * c->w_group};
}

/* The m pixels of a tile, x being the first, which moves behind them; staged: their rows of A, or NULL. */
static void list_rows(const conv_job *j, const operands *o, infold_pixel *x, int64_t m, const uint16_t *staged, tile_rows *rows) {
    const bf16_params *p = (const bf16_params *)j->p;
    const conv_params *c = j->p;
    const int64_t pitch = p->terms * plane_of(c);
    for (int64_t i = 0; i < m;) {
        const int64_t first[3] = {pixel_offset(x, c->in_stride), pixel_offset(x, c->out_stride),
                                  o->res.at ? pixel_offset(x, c->res_stride) : 0}; /* its strides may be anything without it */
        const int64_t begin = i, end = i + pixel_run(x, c->n, m - i);
        for (; i < end; i++) {
            const int64_t in = first[0] + (i - begin) * c->in_stride[3], out = first[1] + (i - begin) * c->out_stride[3];
            const int64_t res = o->res.at ? first[2] + (i - begin) * c->res_stride[3] : 0;
            rows->a[i] = staged ? staged + i * pitch : (const uint16_t *)o->in.at + in;
            if (p->out_half) rows->c16[i] = (uint16_t *)o->out + out;
            else rows->c[i] = (float *)o->out + out;
            if (o->res.at && p->res_half) rows->r16[i] = (const uint16_t *)o->res.at + res;
            else if (o->res.at) rows->r[i] = (const float *)o->res.at + res;
        }
    }
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Panels [q0, q1) of a tile whose rows begin with column `first`; sums: of the first panel, or NULL. */
static void panels(const conv_job *j, const operands *o, infold_bf16_tile *tile, int64_t m, int64_t q0, int64_t q1, int64_t first,
                   uint16_t *sums) {
    const conv_params *c = j->p;
    for (int64_t q = q0; q < q1; q++) {
        const int64_t column = q * INFOLD_BF16_COLUMNS;
        tile->out.column = column - first;
        tile->out.n = least(c->columns - column, INFOLD_BF16_COLUMNS);
        tile->out.bias = o->bias + column;
        tile->b = o->w + q * panel_of((const bf16_params *)j->p);
        tile->sums = sums ? (float *)(void *)(sums + (q - q0) * SUMS) : NULL;
        j->ctx->bf16->gemm(tile, m);
    }
}

/* A few panels of a tile that are swept before they are rounded to bf16: the sums go to a tile of float32 first. */
static void swept(const conv_job *j, const operands *o, infold_bf16_tile tile, const tile_rows *rows, int64_t m, int64_t group,
                  int64_t q0, int64_t q1, uint16_t *partial) {
    float sums[INFOLD_BF16_ROWS * INFOLD_BF16_COLUMNS * SWEPT], *c[INFOLD_BF16_ROWS];
    const float *r[INFOLD_BF16_ROWS];
    const uint16_t *r16[INFOLD_BF16_ROWS];
    uint16_t *out[INFOLD_BF16_ROWS];
    const int64_t column = q0 * INFOLD_BF16_COLUMNS, n = least(j->p->columns - column, (q1 - q0) * INFOLD_BF16_COLUMNS);
    const infold_epilogue epilogue = conv_epilogue_of(j, group, column);
    for (int64_t i = 0; i < m; i++) {
        c[i] = sums + i * n;
        out[i] = rows->c16[i] + column;
        if (tile.out.r) r[i] = rows->r[i] + column;
        if (tile.out.r16) r16[i] = rows->r16[i] + column;
    }
    tile.out.c16 = NULL;
    tile.out.c = c;
    if (tile.out.r) tile.out.r = r;
    if (tile.out.r16) tile.out.r16 = r16;
    panels(j, o, &tile, m, q0, q1, column, partial);
    epilogue_round(&epilogue, j->ctx->bf16, m, c, out, n);
}

/* Pixels [p0, p1), staged or as they lie (stage is NULL), times panels [q0, q1), in tiles of `height` rows. sums: room for those
 * of a tile, or NULL: with them a block of the depth of its rows stays in the first-level cache while it meets all panels. */
static void block(const conv_job *j, const operands *o, int64_t group, const uint16_t *stage, uint16_t *sums,
                  int64_t height, int64_t p0, int64_t p1, int64_t q0, int64_t q1) {
    const bf16_params *p = (const bf16_params *)j->p;
    const conv_params *c = j->p;
    const infold_bf16 *kernel = j->ctx->bf16;
    const int64_t row = p->terms * plane_of(c), at_row = 0, most = kernel->mr / kernel->m_step * height;
    const infold_epilogue epilogue = conv_epilogue_of(j, group, 0);
    const bool sweep = epilogue_sweeps(&epilogue), res = o->res.at != NULL;
    tile_rows rows;
    infold_bf16_tile tile = {.a = rows.a, .a_row = row, .a_plane = plane_of(c), .b_plane = panel_of(p) / p->terms, .terms = p->terms,
                             .height = height, .tap = &at_row, .taps = 1, .k = round_up(c->taps * c->k, kernel->depth_step),
                             .out = {.c = p->out_half ? NULL : rows.c, .c16 = p->out_half ? rows.c16 : NULL,
                                     .r = res && !p->res_half ? rows.r : NULL, .r16 = res && p->res_half ? rows.r16 : NULL,
                                     .lo = epilogue.act.lo, .hi = epilogue.act.hi}};
    if (!stage) {
        tile.tap = j->args[TAP];
        tile.taps = c->taps;
        tile.k = c->k;
    }
    const int64_t spans = sums ? (tile.k + p->depth - 1) / p->depth : 1;
    const int64_t steps = (tile.k + INFOLD_BF16_BLOCK - 1) / INFOLD_BF16_BLOCK;
    infold_pixel x = pixel_at(c->n, p0);
    for (int64_t at = p0, m; at < p1; at += m) {
        tile.from = 0;
        const int64_t blocks = (p1 - at + most - 1) / most; /* of even height, as far as the tiles' lets them */
        m = round_up((p1 - at + blocks - 1) / blocks, height);
        if (m > p1 - at) m = p1 - at;
        list_rows(j, o, &x, m, stage ? stage + (at - p0) * row : NULL, &rows);
        for (int64_t b = 1; b < spans; b++, tile.from = tile.to) {
            tile.to = infold_cut(steps, spans, b) * INFOLD_BF16_BLOCK;
            panels(j, o, &tile, m, q0, q1, 0, sums);
        }
        tile.to = tile.k;
        if (!sweep || !p->out_half) panels(j, o, &tile, m, q0, q1, 0, sums);
        else
            for (int64_t q = q0; q < q1; q += SWEPT)
                swept(j, o, tile, &rows, m, group, q, least(q + SWEPT, q1), sums ? sums + (q - q0) * SUMS : NULL);
        if (!p->out_half) conv_sweep(j, &epilogue, m, rows.c, q0, q1);
    }
}

static void piece(const conv_job *j, int64_t p0, int64_t p1, int64_t group, int64_t q0, int64_t q1, int64_t thread) {
    const bf16_params *p = (const bf16_params *)j->p;
    const conv_params *c = j->p;
    const infold_bf16 *kernel = j->ctx->bf16;
    const operands o = operands_of(j, group);
    const int64_t room = round_up(p->block_rows, INFOLD_BF16_ROWS);
    const int64_t staged = room * p->terms * plane_of(c), kept = sums_of(p);
    uint16_t *stage = (uint16_t *)j->args[STAGE] + thread * (staged + kept);
    uint16_t *sums = kept && !kernel->anywhere ? stage + staged : NULL;
    if (as_it_lies(j)) stage = NULL;
    const int64_t tiles = (p1 - p0 + kernel->m_step - 1) / kernel->m_step, height = (p1 - p0 + tiles - 1) / tiles;
    const int64_t most = kernel->mr / kernel->m_step * height, step = kernel->m_step > 1 ? room / most * most : p->block_rows;
    kernel->begin(height);
    for (int64_t at = p0, end; at < p1; at = end) {
        end = at + step < p1 ? at + step : p1;
        if (stage) stage_rows(j, o.in, at, end, stage);
        for (int64_t q = q0, stop; q < q1; q = stop) {
            stop = q + c->panels_per_block < q1 ? q + c->panels_per_block : q1;
            block(j, &o, group, stage, sums, height, at, end, q, stop);
        }
    }
    kernel->end();
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const bf16_params *p = params;
    infold_ctx own = *ctx;
    if (own.threads > p->stage_threads) own.threads = p->stage_threads;
    conv_job j = conv_job_of(&p->conv, args, &own, INFOLD_BF16_COLUMNS);
    j.piece = piece;
    conv_share(&j, &own, p->block_rows, 2);
}

const infold_op infold_op_conv_bf16 = {
    .name = "conv_bf16",
    .params = CONV_PARAMS " terms block_rows stage_threads depth plane in_half out_half res_half",
    .args = CONV_ARG_NAMES " stage",
    .params_size = sizeof(bf16_params),
    .check = check,
    .run = run,
};
