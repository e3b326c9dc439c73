/* Depthwise convolution: tiles of a few pixels, a block of channels of each. The image brings its own zero border. */
#include "drivers/check.h"
#include "drivers/epilogue.h"
#include "drivers/grid.h"
#include "drivers/rows.h"

typedef struct {
    int64_t n[4], in_stride[4], out_stride[4];
    int64_t taps, channels, w_stride;
    int64_t window; /* as in infold_dw_tile: the stride, 1 or 2, of a 3x3 window without dilation; or 0 */
    int64_t run;   /* taps that lie in_stride[3] apart and come together: the kernel's width where the stride is 1, or 1 */
    int64_t block; /* channels that pass over all pixels before the next ones do: the rows of a window stay in the first-level cache */
    epilogue_params epilogue;
    int64_t group, chunk; /* channels that each reads, if more than 1 with no window and run 1 or 3; products of a chain of sums */
    int64_t half; /* whether both images hold bf16 numbers, not float32 */
} depthwise_params;

enum { IN, W, BIAS, TAP, OUT, EPILOGUE };
/* Channels of a block that is swept before it is rounded to bf16; pixels of a tile of it; pixels of a row that are cut off together. */
enum { SWEPT = 256, TILE = INFOLD_DW_MR, SEGMENT = 64 };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const depthwise_params *p = params;
    CHECK(p->taps >= 1 && p->channels >= 1 && p->block >= 1 && p->block % kernels->lanes == 0 && p->w_stride / kernels->lanes * kernels->lanes >= p->channels, INFOLD_EPARAM);
    CHECK(e[TAP].ptr && e[TAP].after / 8 >= p->taps, INFOLD_EMISSING);
    CHECK(p->run >= 1 && p->taps % p->run == 0, INFOLD_EPARAM);
    const int64_t *tap = e[TAP].ptr;
    for (int64_t t = 0, step; t < p->taps; t++)
        CHECK(t % p->run == 0 || (!__builtin_sub_overflow(tap[t], tap[t - 1], &step) && step == p->in_stride[3]), INFOLD_EPARAM);
    CHECK(p->window >= 0 && p->window <= 2, INFOLD_EPARAM);
    CHECK(p->half == 0 || (p->half == 1 && p->block <= SWEPT), INFOLD_EPARAM);
    if (p->window) {
        CHECK(p->taps == 9, INFOLD_EPARAM);
        int64_t step, down, moved; /* the first two steps, in rows and columns, which the others repeat */
        CHECK(!__builtin_sub_overflow(tap[1], tap[0], &step) && !__builtin_sub_overflow(tap[3], tap[0], &down), INFOLD_EPARAM);
        for (int t = 1; t < 9; t++)
            CHECK(!__builtin_sub_overflow(tap[t], tap[t % 3 ? t - 1 : t - 3], &moved) && moved == (t % 3 ? step : down), INFOLD_EPARAM);
        CHECK(!__builtin_mul_overflow(p->window, step, &moved) && moved == p->in_stride[3], INFOLD_EPARAM);
        CHECK(!__builtin_mul_overflow(p->window, down, &moved) && moved == p->in_stride[2], INFOLD_EPARAM);
    }
    CHECK(p->group >= 1 && p->chunk >= 1 && kernels->lanes % p->group == 0 && p->channels % p->group == 0, INFOLD_EPARAM);
    CHECK(p->group == 1 || (p->window == 0 && (p->run == 1 || p->run == 3)), INFOLD_EPARAM);
    const int64_t rows[1] = {p->taps * p->group}, w_steps[1] = {p->w_stride};
    const infold_span run = span_of_run(p->channels);
    /* the kernel reads whole vectors of weights and bias: w_stride is rounded up to them */
    CHECK(span_fits(span_repeat(span_of_run(p->w_stride), 1, rows, w_steps), &e[W], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_of_run(p->w_stride), &e[BIAS], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_at(span_repeat(run, 4, p->n, p->in_stride), p->taps, e[TAP].ptr), &e[IN], 4 - 2 * p->half), INFOLD_EBOUNDS);
    const infold_span out = span_repeat(run, 4, p->n, p->out_stride);
    CHECK(span_fits(out, &e[OUT], 4 - 2 * p->half) && work_fits(out, rows[0]), INFOLD_EBOUNDS);
    return epilogue_check(&p->epilogue, &e[EPILOGUE], p->channels, 1, 0);
}

typedef struct {
    const depthwise_params *p;
    const infold_ctx *ctx;
    const infold_depthwise *kernel;
    void *const *args;
    int64_t segments;
    infold_grid grid;
} job;

/* A tile of bf16 numbers that is swept before it is rounded. */
static void swept(const job *j, infold_dw_tile tile, const infold_epilogue *epilogue) {
    const depthwise_params *p = j->p;
    float sums[TILE * SWEPT], *c[TILE];
    uint16_t *out[TILE];
    const int64_t pixels = tile.rows * tile.m;
    for (int64_t i = 0; i < pixels; i++) {
        c[i] = sums + i * tile.channels;
        out[i] = (uint16_t *)tile.out + i / tile.m * p->out_stride[2] + i % tile.m * p->out_stride[3];
    }
    tile.sums = sums;
    tile.out_step = tile.channels;
    tile.out_row = tile.m * tile.channels;
    j->kernel->run(&tile);
    epilogue_round(epilogue, j->ctx->bf16, pixels, c, out, tile.channels);
}

/* `pixels` from `x` on, in one row of the image, and in the rows below if there are more in a tile. */
static void stretch(const job *j, infold_dw_tile *tile, const infold_epilogue *epilogue, infold_pixel x, int64_t pixels, int64_t first) {
    const depthwise_params *p = j->p;
    const int64_t begin = first + pixel_offset(&x, p->out_stride);
    int64_t in = first + pixel_offset(&x, p->in_stride), out = begin;
    const bool sweep = epilogue_sweeps(epilogue);
    const int64_t across = p->group > 1 ? j->kernel->grouped : j->kernel->pixels, bytes = 4 - 2 * p->half;
    const int64_t most = !p->window ? across : sweep && p->half ? TILE / tile->rows : SEGMENT;
    for (int64_t count = pixels; count > 0; count -= tile->m, in += tile->m * p->in_stride[3], out += tile->m * p->out_stride[3]) {
        const int64_t tiles = (count + most - 1) / most; /* of even width */
        tile->m = (count + tiles - 1) / tiles;
        tile->in = (const char *)j->args[IN] + in * bytes;
        tile->out = (char *)j->args[OUT] + out * bytes;
        if (sweep && p->half) {
            swept(j, *tile, epilogue);
            continue;
        }
        j->kernel->run(tile);
    }
    for (int64_t row = 0; sweep && !p->half && row < tile->rows; row++)
        epilogue_sweep_even(epilogue, pixels, (float *)j->args[OUT] + begin + row * tile->out_row, tile->out_step, 0, tile->channels);
}

/* Threads share out rows, as those of a convolution before and behind do, by blocks of channels: these are outermost, so that a
 * window's rows stay in the cache, and taken over rather than bands of rows. A row is computed in segments, for images of few
 * rows. */
static void units(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const depthwise_params *p = j->p;
    for (int64_t unit = begin; unit < end;) {
        const infold_part part = grid_next(&j->grid, &unit, end);
        for (int64_t c = part.c0; c < part.c1; c++) {
            const int64_t first = c / j->segments * p->block, from = c % j->segments * SEGMENT;
            const infold_epilogue epilogue = epilogue_of(&p->epilogue, j->ctx->kernels, j->args + EPILOGUE, first);
            infold_dw_tile tile = {.in_step = p->in_stride[3], .out_step = p->out_stride[3], .out_row = p->out_stride[2],
                                   .tap = j->args[TAP], .taps = p->taps, .run = p->run, .window = p->window,
                                   .group = p->group, .chunk = p->chunk,
                                   .channels = p->block < p->channels - first ? p->block : p->channels - first,
                                   .w = (const float *)j->args[W] + first, .w_stride = p->w_stride,
                                   .bias = (const float *)j->args[BIAS] + first, .lo = epilogue.act.lo, .hi = epilogue.act.hi};
            for (int64_t row = part.r0; row < part.r1; row += tile.rows) {
                const int64_t y = row % p->n[2], image = row / p->n[2];
                const int64_t left = p->n[2] - y < part.r1 - row ? p->n[2] - y : part.r1 - row;
                const int64_t tiles = p->window ? (left + j->kernel->rows - 1) / j->kernel->rows : left; /* of even height */
                tile.rows = (left + tiles - 1) / tiles;
                stretch(j, &tile, &epilogue, (infold_pixel){{image / p->n[1], image % p->n[1], y, from}},
                        SEGMENT < p->n[3] - from ? SEGMENT : p->n[3] - from, first);
            }
        }
    }
}

/* A multiply-add takes twice as long as in a matrix product; a row that another core has computed takes a sixteenth of its own
 * work to fetch. */
static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const depthwise_params *p = params;
    job j = {.p = p, .ctx = ctx, .kernel = p->half ? &ctx->bf16->depthwise : &ctx->kernels->depthwise, .args = args,
             .segments = (p->n[3] + SEGMENT - 1) / SEGMENT};
    if (pixel_count(p->n) == 0) return;
    const int64_t columns = (p->channels + p->block - 1) / p->block * j.segments;
    j.grid = grid_of((infold_work){.rows = p->n[0] * p->n[1] * p->n[2], .columns = columns, .group = columns,
                                   .row_cost = (double)columns / 16, .tile = p->window ? 2 : 1, .block = 1,
                                   .unit = 2.0 * (double)(p->taps * p->group) * (double)p->block *
                                           (double)(p->n[3] < SEGMENT ? p->n[3] : SEGMENT)},
                     ctx->threads);
    grid_run(ctx, &j.grid, units, &j);
}

const infold_op infold_op_depthwise = {
    .name = "depthwise",
    .params = "n[4] in_stride[4] out_stride[4] taps channels w_stride window run block " EPILOGUE_PARAMS " group chunk half",
    .args = "in w bias tap out " EPILOGUE_ARGS,
    .params_size = sizeof(depthwise_params),
    .check = check,
    .run = run,
};
