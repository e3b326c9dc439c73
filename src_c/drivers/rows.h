/* Pixel p of a 4-D iteration space (batch, depth, height, width), walked in order: row pointers for tiles of any shape. */
#ifndef INFOLD_ROWS_H
#define INFOLD_ROWS_H

#include "abi.h"

typedef struct {
    int64_t index[4];
} infold_pixel;

static inline infold_pixel pixel_at(const int64_t n[4], int64_t p) {
    infold_pixel x;
    for (int i = 3; i >= 0; i--) {
        x.index[i] = p % n[i];
        p /= n[i];
    }
    return x;
}

static inline void pixel_next(infold_pixel *x, const int64_t n[4]) {
    for (int i = 3; i >= 0; i--) {
        if (++x->index[i] < n[i]) return;
        x->index[i] = 0;
    }
}

/* How many pixels from x on lie in one row, at most `most` (>= 1); x moves behind them. */
static inline int64_t pixel_run(infold_pixel *x, const int64_t n[4], int64_t most) {
    const int64_t left = n[3] - x->index[3], run = left < most ? left : most;
    x->index[3] += run - 1;
    pixel_next(x, n);
    return run;
}

static inline int64_t pixel_offset(const infold_pixel *x, const int64_t stride[4]) {
    return x->index[0] * stride[0] + x->index[1] * stride[1] + x->index[2] * stride[2] + x->index[3] * stride[3];
}

static inline int64_t pixel_count(const int64_t n[4]) { return n[0] * n[1] * n[2] * n[3]; }

#endif
