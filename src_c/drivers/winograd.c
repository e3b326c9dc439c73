/* 3x3 convolution of stride 1 and any dilation by Winograd's minimal filtering: blocks of tiles are transformed, multiplied
 * position by position with the transformed filters (a matrix product of tiles x channels x filters for each of the (side + 2)^2
 * positions), and transformed back. A block's scratch is V, [position][tile][channel], and M, [position][tile][filter]. */
#include "drivers/check.h"
#include "drivers/epilogue.h"
#include "drivers/grid.h"

typedef struct {
    int64_t side;                                       /* 2 or 4: output pixels of a tile along each axis */
    int64_t n[3];                                       /* output: batch, height, width */
    int64_t in_size[2], pad[2];                         /* height and width of the input; zeros before it */
    int64_t dilation[2];                                /* an output meets input pixels so far apart */
    int64_t in_stride[3], out_stride[3], res_stride[3]; /* elements per step of n */
    int64_t k, columns;                                 /* input channels, filters */
    int64_t slots, tiles;                               /* the scratch holds `slots` blocks of `tiles` tiles, one for each thread */
    int64_t v_position, m_position;                     /* elements from position to position in V and M of one block */
    int64_t chunk;                                      /* products in one chain of sums */
    epilogue_params epilogue;
    double point[2]; /* the interpolation points */
    int64_t in_half, out_half; /* whether the image holds bf16 numbers, not float32; the residual holds what the output does */
} winograd_params;

enum { IN, W, BIAS, OUT, SCRATCH, RES, EPILOGUE };
enum { RESIDENT = 8192 }; /* floats of a panel that stay in the first-level cache beside the rows */
enum { MAX_SIDE = 4, SWEPT = 256 }; /* SWEPT: channels of a tile that are swept before they are rounded to bf16 */

static int64_t positions_of(const winograd_params *p) { return (p->side + 2) * (p->side + 2); }

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const winograd_params *p = params;
    CHECK((p->side == 2 || p->side == 4) && p->k >= 1 && p->columns >= 1 && p->slots >= 1 && p->tiles >= 1 && p->chunk >= 1, INFOLD_EPARAM);
    CHECK((p->in_half | p->out_half | 1) == 1, INFOLD_EPARAM);
    const int64_t in_bytes = 4 - 2 * p->in_half, out_bytes = 4 - 2 * p->out_half;
    int64_t count = 1, size, row;
    for (int i = 0; i < 3; i++) CHECK(p->n[i] >= 0 && p->n[i] < INT32_MAX, INFOLD_EPARAM);
    for (int i = 0; i < 3; i++) CHECK(!__builtin_mul_overflow(count, p->n[i], &count), INFOLD_EPARAM);
    for (int i = 0; i < 2; i++) CHECK(p->pad[i] >= 0 && p->pad[i] < INT32_MAX && p->in_size[i] < INT32_MAX, INFOLD_EPARAM);
    for (int i = 0; i < 2; i++) CHECK(p->dilation[i] == 1 || (p->dilation[i] > 1 && p->dilation[i] <= p->n[1 + i]), INFOLD_EPARAM);
    const int64_t positions = positions_of(p), lanes = kernels->lanes;
    CHECK(p->k <= INT64_MAX / 2 && p->columns <= INT64_MAX / 2, INFOLD_EPARAM);
    const int64_t padded = (p->columns + lanes - 1) / lanes * lanes;
    /* pixels outside the image are not read, whatever the padding */
    const int64_t in_shape[3] = {p->n[0], p->in_size[0], p->in_size[1]};
    CHECK(span_fits(span_repeat(span_of_run(p->k), 3, in_shape, p->in_stride), &e[IN], in_bytes), INFOLD_EBOUNDS);
    CHECK(!__builtin_mul_overflow(positions, p->k, &size) && !__builtin_mul_overflow(size, padded, &size), INFOLD_EPARAM);
    CHECK(span_fits(span_of_run(size), &e[W], 4) && span_fits(span_of_run(padded), &e[BIAS], 4), INFOLD_EBOUNDS);
    const infold_span run = span_of_run(p->columns);
    const infold_span out = span_repeat(run, 3, p->n, p->out_stride);
    CHECK(span_fits(out, &e[OUT], out_bytes) && work_fits(out, p->k), INFOLD_EBOUNDS);
    if (arg_given(&e[RES])) CHECK(span_fits(span_repeat(run, 3, p->n, p->res_stride), &e[RES], out_bytes), INFOLD_EBOUNDS);
    CHECK(!__builtin_mul_overflow(p->tiles, p->k, &row) && p->v_position >= row, INFOLD_EBOUNDS);
    CHECK(!__builtin_mul_overflow(p->tiles, p->columns, &row) && p->m_position >= row, INFOLD_EBOUNDS);
    CHECK(!__builtin_add_overflow(p->v_position, p->m_position, &size) && !__builtin_mul_overflow(size, positions, &size) &&
          !__builtin_mul_overflow(size, p->slots, &size), INFOLD_EPARAM);
    CHECK(span_fits(span_of_run(size), &e[SCRATCH], 4), INFOLD_EBOUNDS);
    return epilogue_check(&p->epilogue, &e[EPILOGUE], p->columns, 1, 0);
}

typedef struct {
    const winograd_params *p;
    const infold_kernels *kernels;
    const infold_bf16 *bf16;
    void (*in)(const infold_winograd_in *);
    void (*out)(const infold_winograd_out *);
    void *const *args;
    int64_t rows[2], tiles; /* tiles down and across one phase of an image; in all */
    infold_grid grid;
} job;

static int64_t panels_of(const job *j) { return (j->p->columns + j->kernels->nr - 1) / j->kernels->nr; }

/* A block of tiles [first, first + count) and where its scratch lies. */
typedef struct {
    int64_t first, count;
    float *v, *m;
} block;

/* Output pixels that lie `dilation` apart are a phase, and meet no other input pixels than the phase's own: a dilated convolution
 * is one of dilation 1 for each phase. */
typedef struct {
    int64_t image, phase[2], at[2]; /* of the tile's first output pixel, in its phase */
} place;

static place place_of(const job *j, int64_t tile) {
    const int64_t *d = j->p->dilation, each = j->rows[0] * j->rows[1], image = tile / each, corner = tile % each;
    return (place){image / (d[0] * d[1]), {image / d[1] % d[0], image % d[1]},
                   {corner / j->rows[1] * j->p->side, corner % j->rows[1] * j->p->side}};
}

/* How many of `n` indices are first, first + step, ... */
static int64_t every(int64_t n, int64_t first, int64_t step) { return n > first ? (n - first + step - 1) / step : 0; }

/* Output pixels of the tile along axis i: none where its phase is a pixel shorter than the longest. */
static int64_t live_of(const job *j, const place *at, int i) {
    const int64_t left = every(j->p->n[1 + i], at->phase[i], j->p->dilation[i]) - at->at[i];
    return left < 0 ? 0 : left < j->p->side ? left : j->p->side;
}

/* Elements from pixel to pixel of a phase. Where no phase has two, the pitch may be anything. */
static int64_t step_of(int64_t n, int64_t pitch, int64_t dilation) { return n > dilation ? pitch * dilation : 0; }

static void transform_in(const job *j, const block *b) {
    const winograd_params *p = j->p;
    infold_winograd_in t = {.step = {step_of(p->in_size[0], p->in_stride[1], p->dilation[0]),
                                     step_of(p->in_size[1], p->in_stride[2], p->dilation[1])},
                            .position = p->v_position, .channels = p->k, .point = p->point};
    for (int64_t i = 0; i < b->count; i++) {
        const place at = place_of(j, b->first + i);
        int64_t in = at.image * p->in_stride[0];
        for (int axis = 0; axis < 2; axis++) { /* the input's phase: as many pixels before the output's as there is padding */
            const int64_t d = p->dilation[axis], before = p->pad[axis] - at.phase[axis], skipped = before > 0 ? (before + d - 1) / d : 0;
            const int64_t first = skipped * d - before;
            t.size[axis] = every(p->in_size[axis], first, d);
            in += t.size[axis] ? first * p->in_stride[1 + axis] : 0;
            t.at[axis] = at.at[axis] - skipped;
        }
        t.in = (const char *)j->args[IN] + in * (4 - 2 * p->in_half);
        t.v = b->v + i * p->k;
        j->in(&t);
    }
}

/* M of the block's tiles for filters in panels [j0, j1). A panel that the first-level cache does not hold anyway is fetched during all
 * groups of rows that meet the one before, and not while the first group waits for it: such filters come from memory. */
static void multiply(const job *j, const block *b, int64_t j0, int64_t j1) {
    const winograd_params *p = j->p;
    const infold_kernels *kn = j->kernels;
    const int64_t nr = kn->nr, padded = (p->columns + kn->lanes - 1) / kn->lanes * kn->lanes, positions = positions_of(p);
    const float zero[2 * INFOLD_MAX_LANES] = {0}, *a[INFOLD_MAX_MR];
    float *c[INFOLD_MAX_MR];
    const int64_t no_offset = 0, groups = (b->count + kn->mr - 1) / kn->mr; /* of rows, of even height */
    infold_tile tile = {.a = a, .c = c, .tap = &no_offset, .taps = 1, .k = p->k, .chunk = p->chunk, .bias = zero,
                        .lo = -INFINITY, .hi = INFINITY, .next_step = (nr + groups - 1) / groups};
    for (int64_t at = 0; at < positions; at++)
        for (int64_t q = j0; q < j1; q++) {
            tile.column = q * nr;
            tile.n = p->columns - tile.column < nr ? p->columns - tile.column : nr;
            tile.b = (const float *)j->args[W] + p->k * (at * padded + tile.column);
            const float *next = tile.b + p->k * (q + 1 < j1 ? nr : padded - (j1 - 1 - j0) * nr);
            for (int64_t g = 0; g < groups; g++, next += p->k * tile.next_step) {
                if (groups > 1 && p->k * nr > RESIDENT) tile.next = next;
                const int64_t r0 = b->count * g / groups, rows = b->count * (g + 1) / groups - r0;
                for (int64_t i = 0; i < rows; i++) {
                    a[i] = b->v + at * p->v_position + (r0 + i) * p->k;
                    c[i] = b->m + at * p->m_position + (r0 + i) * p->columns;
                }
                kn->gemm[tile.n > kn->lanes][rows - 1](&tile);
            }
        }
}

/* Filters from `first` on of a tile of bf16 numbers that is swept before it is rounded. */
static void swept(const job *j, infold_winograd_out t, int64_t first) {
    const int64_t filters = t.channels, step[2] = {t.step[0], t.step[1]};
    float sums[MAX_SIDE * MAX_SIDE * SWEPT], *c[MAX_SIDE * MAX_SIDE];
    uint16_t *out[MAX_SIDE * MAX_SIDE];
    t.sums = sums;
    for (int64_t done = 0; done < filters; done += t.channels) {
        const int64_t n = t.channels = filters - done < SWEPT ? filters - done : SWEPT;
        const infold_epilogue epilogue = epilogue_of(&j->p->epilogue, j->kernels, j->args + EPILOGUE, first + done);
        for (int64_t i = 0; i < t.live[0] * t.live[1]; i++) {
            c[i] = sums + i * n;
            out[i] = (uint16_t *)t.out + done + i / t.live[1] * step[0] + i % t.live[1] * step[1];
        }
        t.step[0] = t.live[1] * n;
        t.step[1] = n;
        j->out(&t);
        epilogue_round(&epilogue, j->bf16, t.live[0] * t.live[1], c, out, n);
        t.m += n;
        t.bias += n;
        if (t.r) t.r = (const uint16_t *)t.r + n;
    }
}

/* The block's output pixels, filters in panels [j0, j1). */
static void transform_out(const job *j, const block *b, int64_t j0, int64_t j1) {
    const winograd_params *p = j->p;
    const int64_t first = j0 * j->kernels->nr, last = j1 * j->kernels->nr, end = last < p->columns ? last : p->columns;
    const infold_epilogue epilogue = epilogue_of(&p->epilogue, j->kernels, j->args + EPILOGUE, 0);
    const int64_t bytes = 4 - 2 * p->out_half, none[3] = {0}, *const res_stride = j->args[RES] ? p->res_stride : none;
    const bool sweep = epilogue_sweeps(&epilogue);
    infold_winograd_out t = {.position = p->m_position, .channels = end - first, .point = p->point,
                             .bias = (const float *)j->args[BIAS] + first, .lo = epilogue.act.lo, .hi = epilogue.act.hi};
    for (int64_t i = 0; i < b->count; i++) {
        const place at = place_of(j, b->first + i);
        int64_t out = at.image * p->out_stride[0] + first, res = at.image * res_stride[0] + first;
        for (int axis = 0; axis < 2; axis++) {
            const int64_t d = p->dilation[axis], pixel = at.at[axis] * d + at.phase[axis];
            out += pixel * p->out_stride[1 + axis];
            res += pixel * res_stride[1 + axis];
            t.step[axis] = step_of(p->n[1 + axis], p->out_stride[1 + axis], d);
            t.r_step[axis] = step_of(p->n[1 + axis], res_stride[1 + axis], d);
            t.live[axis] = live_of(j, &at, axis);
        }
        if (t.live[0] == 0 || t.live[1] == 0) continue;
        t.m = b->m + i * p->columns + first;
        t.out = (char *)j->args[OUT] + out * bytes;
        t.r = j->args[RES] ? (const char *)j->args[RES] + res * bytes : NULL;
        if (sweep && p->out_half) {
            swept(j, t, first);
            continue;
        }
        j->out(&t);
        for (int64_t y = 0; sweep && y < t.live[0]; y++)
            epilogue_sweep_even(&epilogue, t.live[1], (float *)t.out + y * t.step[0], t.step[1], first, end - first);
    }
}

static block scratch_of(const job *j, int64_t slot) {
    const winograd_params *p = j->p;
    const int64_t positions = positions_of(p);
    float *v = (float *)j->args[SCRATCH] + slot * positions * (p->v_position + p->m_position);
    return (block){.v = v, .m = v + positions * p->v_position};
}

/* Units of the grid, each in even blocks of tiles. Parts of the same tiles transform them each for itself: one core has what
 * another wrote only after a detour. */
static void units(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    const job *j = arg;
    block b = scratch_of(j, thread);
    for (int64_t unit = begin; unit < end;) {
        const infold_part part = grid_next(&j->grid, &unit, end);
        const int64_t tiles = part.r1 - part.r0, blocks = (tiles + j->p->tiles - 1) / j->p->tiles;
        for (int64_t i = 0; i < blocks; i++) {
            b.first = part.r0 + infold_cut(tiles, blocks, i);
            b.count = part.r0 + infold_cut(tiles, blocks, i + 1) - b.first;
            transform_in(j, &b);
            multiply(j, &b, part.c0, part.c1);
            transform_out(j, &b, part.c0, part.c1);
        }
    }
}

/* Costs of the grid, fitted on two threads: the filters are more than any cache near a core holds. */
enum { TILE_COST = 5, PANEL_COST = 19 };
enum { NEAR = 3 << 16 }; /* floats of filters that the second-level cache holds, so that few tiles may meet them */

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const winograd_params *p = params;
    const int side = p->side == 4 ? INFOLD_WINOGRAD_4 : INFOLD_WINOGRAD_2;
    job j = {.p = p, .kernels = ctx->kernels, .bf16 = ctx->bf16, .args = args,
             .in = p->in_half ? ctx->bf16->winograd_in[side] : ctx->kernels->winograd_in[side],
             .out = p->out_half ? ctx->bf16->winograd_out[side] : ctx->kernels->winograd_out[side]};
    for (int i = 0; i < 2; i++) j.rows[i] = (every(p->n[1 + i], 0, p->dilation[i]) + p->side - 1) / p->side;
    j.tiles = p->n[0] * p->dilation[0] * p->dilation[1] * j.rows[0] * j.rows[1];
    if (j.tiles == 0) return;
    const int64_t filters = positions_of(p) * p->k * p->columns;
    j.grid = grid_of((infold_work){.rows = j.tiles, .columns = panels_of(&j), .group = panels_of(&j), .row_cost = TILE_COST,
                                   .column_cost = PANEL_COST, .unit = (double)positions_of(p) * (double)p->k * (double)ctx->kernels->nr,
                                   .tile = filters <= NEAR ? ctx->kernels->mr : p->tiles, .staged = true},
                     ctx->threads < p->slots ? ctx->threads : p->slots);
    grid_run(ctx, &j.grid, units, &j);
}

const infold_op infold_op_winograd = {
    .name = "winograd",
    .params = "side n[3] in_size[2] pad[2] dilation[2] in_stride[3] out_stride[3] res_stride[3] k columns slots tiles v_position "
              "m_position chunk " EPILOGUE_PARAMS " point[2]:f in_half out_half",
    .args = "in w bias out scratch res? " EPILOGUE_ARGS,
    .params_size = sizeof(winograd_params),
    .check = check,
    .run = run,
};
