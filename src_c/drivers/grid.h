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

enum { GRID_GRAIN = 1000000 }; /* multiply-adds that are worth waking a thread for: some 10 microseconds */

static inline infold_grid grid_of(const infold_work *w, int64_t threads) {
    const double worth = 1 + w->unit * (double)w->rows * (double)w->columns / GRID_GRAIN;
    if ((double)threads > worth) threads = (int64_t)worth;
    infold_grid best = {1, 1};
    double least = INFINITY;
    for (int64_t down = 1; down <= threads && down <= w->rows; down++) {
        const int64_t across = threads / down < w->columns ? threads / down : w->columns;
        const double rows = (double)((w->rows + down - 1) / down), columns = (double)((w->columns + across - 1) / across);
        const double groups = ceil(columns / (double)w->group);
        const double cost = rows * columns + w->row_cost * rows * groups + w->column_cost * columns;
        if (cost < least) least = cost, best = (infold_grid){down, across};
    }
    return best;
}

#endif
