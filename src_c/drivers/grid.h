/* Work that is a rectangle, rows (pixels) by columns (filters): each thread takes some rows of some columns, in the division whose
 * largest part costs the least. */
#ifndef INFOLD_GRID_H
#define INFOLD_GRID_H

#include <math.h>
#include <stdbool.h>

#include "drivers/parallel.h"

typedef struct {
    int64_t rows, columns;
    int64_t group;                /* columns that share what is read of a row */
    double row_cost, column_cost; /* of reading and preparing one, in units of one row's work with one column */
    double unit;                  /* multiply-adds of that unit */
    int64_t tile;                 /* rows that stay together */
    int64_t block;                /* the most columns that belong together */
    bool staged;                  /* rows are prepared for all columns of a part at once: these stay together */
} infold_work;

/* Work in parts, `down` x `across`, each cut into bands of rows by blocks of columns, which other threads may take over. */
typedef struct {
    infold_work work;
    int64_t down, across, bands, blocks;
} infold_grid;

/* Rows [r0, r1) of columns [c0, c1). */
typedef struct {
    int64_t r0, r1, c0, c1;
} infold_part;

enum { GRID_GRAIN = 300000 }; /* multiply-adds that are worth a thread, or a band or block of their own: some 3 microseconds */

/* What the largest part costs. */
static inline double grid_cost(const infold_grid *g) {
    const infold_work *w = &g->work;
    const double rows = (double)((w->rows + g->down - 1) / g->down), columns = (double)((w->columns + g->across - 1) / g->across);
    return rows * columns + w->row_cost * rows * ceil(columns / (double)w->group) + w->column_cost * columns;
}

static inline int64_t grid_within(int64_t low, int64_t x, int64_t high) { return x > high ? high : x < low ? low : x; }

static inline infold_grid grid_of(infold_work work, int64_t threads) {
    infold_grid best = {work, 1, 1, 1, 1};
    double least = grid_cost(&best);
    const double worth = 1 + work.unit * least / GRID_GRAIN;
    if ((double)threads > worth) threads = (int64_t)worth;
    for (int64_t down = 1; down <= threads && down <= work.rows; down++) {
        const infold_grid grid = {work, down, threads / down < work.columns ? threads / down : work.columns, 1, 1};
        const double cost = grid_cost(&grid);
        if (cost < least) least = cost, best = grid;
    }
    const int64_t columns = work.columns / best.across, tiles = (work.rows / best.down + work.tile - 1) / work.tile;
    const double most = best.down * best.across == 1 ? 1 : fmin(work.unit * least / GRID_GRAIN, INFOLD_TICKETS);
    if (!work.staged) best.blocks = grid_within((columns + work.block - 1) / work.block, best.across > 1 ? (int64_t)most : 1, columns);
    if (best.across == 1) best.bands = grid_within(1, (int64_t)most / best.blocks, tiles);
    return best;
}

/* Units are counted block by block, and band by band within. All bands of one block from `*unit` on, but for those from `end` on;
 * *unit: advanced behind them. */
static inline infold_part grid_next(const infold_grid *g, int64_t *unit, int64_t end) {
    const int64_t part = *unit / (g->bands * g->blocks), block = *unit / g->bands % g->blocks, band = *unit % g->bands;
    const int64_t last = grid_within(band, band + end - *unit, g->bands);
    const int64_t down = part / g->across, across = part % g->across;
    const int64_t r0 = infold_cut(g->work.rows, g->down, down), c0 = infold_cut(g->work.columns, g->across, across);
    const int64_t rows = infold_cut(g->work.rows, g->down, down + 1) - r0, tiles = (rows + g->work.tile - 1) / g->work.tile;
    const int64_t columns = infold_cut(g->work.columns, g->across, across + 1) - c0;
    *unit += last - band;
    return (infold_part){r0 + infold_cut(rows, tiles, infold_cut(tiles, g->bands, band)),
                         r0 + infold_cut(rows, tiles, infold_cut(tiles, g->bands, last)),
                         c0 + infold_cut(columns, g->blocks, block), c0 + infold_cut(columns, g->blocks, block + 1)};
}

/* body: for units, as `grid_next` counts them */
static inline void grid_run(const infold_ctx *ctx, const infold_grid *g, infold_body body, const void *arg) {
    infold_ctx own = *ctx;
    own.threads = g->down * g->across;
    infold_parallel(&own, own.threads * g->bands * g->blocks, 1, body, arg);
}

#endif
