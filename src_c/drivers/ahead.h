/* What the product of a tile with a panel of filters fetches meanwhile, a few lines with each row of B: outputs and residuals that will
 * be stored and read some hundred nanoseconds later, and input. Fetched all at once, they would hold up the loads of the product. */
#ifndef INFOLD_AHEAD_H
#define INFOLD_AHEAD_H

#include "drivers/conv.h"

enum {
    AHEAD_SOON = 128, /* rows of B that should pass before what is fetched is wanted */
    AHEAD_FAR = 4096, /* in so many, input that is fetched may be gone again */
};

/* For all tiles of panels [j0, j1). */
typedef struct {
    int64_t in, out, res;  /* elements from pixel to pixel */
    int64_t tiles, column; /* from a tile and panel to those whose outputs are fetched with it */
    int64_t steps;         /* of one item of the list */
    int64_t input, share;  /* items and elements for each panel, of a tile's input */
    int64_t nr;
} ahead;

static inline ahead ahead_for(const conv_job *j, int64_t chunk, int64_t panels) {
    const conv_params *p = j->p;
    const int64_t rows = p->taps * p->k, chain = p->k < chunk ? p->k : chunk;
    ahead x = {.nr = j->nr, .column = rows < AHEAD_SOON ? 0 : j->nr};
    if (p->n[3] > 1) x.in = p->in_stride[3], x.out = p->out_stride[3], x.res = p->res_stride[3]; /* else they may be anything */
    x.share = j->ctx->kernels->mr * x.in / panels;
    x.tiles = rows < AHEAD_SOON ? 1 + AHEAD_SOON / (rows * panels + 1) : 0;
    x.steps = chain < INFOLD_AHEAD_ROWS ? chain : INFOLD_AHEAD_ROWS;
    if (x.in > 0 && x.in <= p->k && rows * panels <= AHEAD_FAR) x.input = 1 + x.share / (x.steps * j->nr + 1);
    return x;
}

/* Two vectors in each of m rows. */
static inline void ahead_rows(const ahead *x, infold_tile *t, const float *at, int64_t pitch, int64_t m) {
    for (at += x->tiles * m * pitch + t->column + x->column; m > 0 && t->aheads < INFOLD_AHEADS; m -= x->steps, at += x->steps * pitch)
        t->ahead[t->aheads++] = (infold_ahead){at, m > 1 ? pitch : 0, x->nr};
}

/* The list for the tile t of m pixels, the first of `left`, and the first panel. in: its first row of the input. */
static inline void ahead_of_tile(const ahead *x, infold_tile *t, const float *in, int64_t m, int64_t left) {
    t->aheads = 0;
    if (x->tiles * m >= left || x->steps == 0) return;
    if (t->r) ahead_rows(x, t, t->r[0], x->res, m);
    ahead_rows(x, t, t->c[0], x->out, m);
    in += (x->tiles > 1 ? x->tiles : 1) * m * x->in;
    for (int64_t i = 0; i < x->input && t->aheads < INFOLD_AHEADS; i++, in += x->steps * x->nr)
        t->ahead[t->aheads++] = (infold_ahead){in, x->nr, x->share};
}

/* The same for the next panel. */
static inline void ahead_of_panel(infold_tile *t) {
    for (int64_t i = 0; i < t->aheads; i++) t->ahead[i].at += t->ahead[i].panel;
}

#endif
