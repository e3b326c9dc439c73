/* Work that is a rectangle, rows (pixels) by columns (filters): each thread takes some rows of some columns, in the division whose
 * largest part costs the least. */
#ifndef INFOLD_GRID_H
#define INFOLD_GRID_H

#include <math.h>

#include "drivers/parallel.h"

typedef struct {
    int64_t rows, columns;
    int64_t group;                /* columns that share what is read of a row */
    double row_cost, column_cost; /* of reading and preparing one, in units of one row's work with one column */
    double unit;                  /* multiply-adds of that unit */
} infold_work;

typedef struct {
    int64_t down, across;
} infold_grid;

enum { GRID_GRAIN = 300000 }; /* multiply-adds that are worth a thread, or a part of their own: some 3 microseconds */

/* What a division's largest part costs. */
static inline double grid_cost(const infold_work *w, infold_grid grid) {
    const double rows = (double)((w->rows + grid.down - 1) / grid.down), columns = (double)((w->columns + grid.across - 1) / grid.across);
    return rows * columns + w->row_cost * rows * ceil(columns / (double)w->group) + w->column_cost * columns;
}

static inline infold_grid grid_of(const infold_work *w, int64_t threads) {
    infold_grid best = {1, 1};
    double least = grid_cost(w, best);
    const double worth = 1 + w->unit * least / GRID_GRAIN;
    if ((double)threads > worth) threads = (int64_t)worth;
    for (int64_t down = 1; down <= threads && down <= w->rows; down++) {
        const infold_grid grid = {down, threads / down < w->columns ? threads / down : w->columns};
        const double cost = grid_cost(w, grid);
        if (cost < least) least = cost, best = grid;
    }
    return best;
}

#endif
