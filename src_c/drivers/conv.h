/* What the drivers of implicit matrix products share: their parameters, the proof of the addresses, the threads' shares.
 *     out[p][:] = epilogue(sum over taps t of in[p + tap[t]][0..k) * w[t] + bias + residual[p])
 * over a 4-D space of output pixels p. Images bring their own zero border, so no tap needs a test. */
#ifndef INFOLD_CONV_H
#define INFOLD_CONV_H

#include "drivers/check.h"
#include "drivers/epilogue.h"
#include "drivers/grid.h"
#include "drivers/rows.h"

typedef struct {
    int64_t n[4];                                    /* output pixels: batch, depth, height, width */
    int64_t in_stride[4], out_stride[4], res_stride[4]; /* elements per step of n; in_stride includes the conv's stride */
    int64_t taps, k;                                 /* k: contiguous elements under each tap */
    int64_t groups, columns;                         /* columns: output channels of one group */
    int64_t in_group, out_group, res_group;          /* elements between the groups' channels (or between a batch's matrices) */
    int64_t w_group, bias_group;                     /* elements between the groups' packed panels and biases */
    int64_t panels_per_block;                        /* panels kept in L2 while all pixels pass by */
    epilogue_params epilogue;
    double in_lo, in_hi;   /* the prologue's clamp */
    int64_t in_map_stride; /* elements from one batch index's prologue map to the next's; 0: one for all */
} conv_params;

#define CONV_PARAMS                                                                                                     \
    "n[4] in_stride[4] out_stride[4] res_stride[4] taps k groups columns in_group out_group "                           \
    "res_group w_group bias_group panels_per_block " EPILOGUE_PARAMS " in_lo:f in_hi:f in_map_stride"

/* IN_SCALE and IN_SHIFT make a prologue, in = clamp(in * in_scale + in_shift) per channel: a BatchNorm in front, or the scales of a
 * squeeze-and-excitation, applied to a tile's rows on their way in. Only for one tap: under several, every row would be computed
 * once per tap. */
enum { IN, W, BIAS, TAP, OUT, RES, IN_SCALE, IN_SHIFT, EPILOGUE, CONV_ARGS = EPILOGUE + 3 };
#define CONV_ARG_NAMES "in w bias tap out res? in_scale? in_shift? " EPILOGUE_ARGS

/* Of one element of the images. */
typedef struct {
    int64_t in, out, res;
} conv_bytes;

/* All but the weights. rows: taps * k; padded: columns in whole vectors. */
static inline infold_status conv_check(const conv_params *p, conv_bytes bytes, const infold_extent *e, const infold_kernels *kernels,
                                       int64_t *rows, int64_t *padded) {
    CHECK(p->taps >= 1 && p->k >= 0 && p->groups >= 1 && p->columns >= 1 && p->panels_per_block >= 1, INFOLD_EPARAM);
    CHECK(e[TAP].ptr && e[TAP].after / 8 >= p->taps, INFOLD_EMISSING);
    CHECK(p->columns <= INT64_MAX / 2 && p->panels_per_block <= INT64_MAX / 2, INFOLD_EPARAM);
    CHECK(!__builtin_mul_overflow(p->taps, p->k, rows), INFOLD_EPARAM);
    *padded = (p->columns + kernels->lanes - 1) / kernels->lanes * kernels->lanes;
    const int64_t groups[1] = {p->groups};
    const infold_span in = span_repeat(span_repeat(span_of_run(p->k), 4, p->n, p->in_stride), 1, groups, &p->in_group);
    CHECK(span_fits(span_at(in, p->taps, e[TAP].ptr), &e[IN], bytes.in), INFOLD_EBOUNDS);
    /* the kernel reads whole vectors of bias */
    CHECK(span_fits(span_repeat(span_of_run(*padded), 1, groups, &p->bias_group), &e[BIAS], 4), INFOLD_EBOUNDS);
    const infold_span run = span_of_run(p->columns);
    const infold_span out = span_repeat(span_repeat(run, 4, p->n, p->out_stride), 1, groups, &p->out_group);
    CHECK(span_fits(out, &e[OUT], bytes.out) && work_fits(out, *rows), INFOLD_EBOUNDS);
    const infold_span res = span_repeat(span_repeat(run, 4, p->n, p->res_stride), 1, groups, &p->res_group);
    CHECK(!arg_given(&e[RES]) || span_fits(res, &e[RES], bytes.res), INFOLD_EBOUNDS);
    if (arg_given(&e[IN_SCALE]) || arg_given(&e[IN_SHIFT])) {
        CHECK(p->taps == 1 && p->groups == 1, INFOLD_EPARAM);
        const infold_span map = span_repeat(span_of_run(p->k), 1, p->n, &p->in_map_stride);
        CHECK(span_fits(map, &e[IN_SCALE], 4) && span_fits(map, &e[IN_SHIFT], 4), INFOLD_EBOUNDS);
    }
    return epilogue_check(&p->epilogue, &e[EPILOGUE], p->columns, p->groups, p->bias_group);
}

typedef struct conv_job {
    const conv_params *p;
    const infold_ctx *ctx;
    void *const *args;
    int64_t nr;             /* columns of a panel */
    int64_t pixels, panels; /* panels of one group */
    infold_grid grid;
    /* pixels [p0, p1) times panels [q0, q1) of one group */
    void (*piece)(const struct conv_job *, int64_t p0, int64_t p1, int64_t group, int64_t q0, int64_t q1, int64_t thread);
} conv_job;

static inline conv_job conv_job_of(const conv_params *p, void *const *args, const infold_ctx *ctx, int64_t nr) {
    return (conv_job){.p = p, .ctx = ctx, .args = args, .nr = nr, .pixels = pixel_count(p->n), .panels = (p->columns + nr - 1) / nr};
}

/* Units of the grid; panels are counted across the groups. */
static inline void conv_units(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    const conv_job *j = arg;
    for (int64_t unit = begin; unit < end;) {
        const infold_part part = grid_next(&j->grid, &unit, end);
        for (int64_t at = part.c0; part.r0 < part.r1 && at < part.c1;) {
            const int64_t g = at / j->panels, q = at % j->panels, q1 = q + part.c1 - at < j->panels ? q + part.c1 - at : j->panels;
            j->piece(j, part.r0, part.r1, g, q, q1, thread);
            at += q1 - q;
        }
    }
}

/* Fitted on two threads: rows may come from another core's cache, panels come in order and are prefetched. tile: pixels that stay
 * together; staging: what is done to a pixel before it meets its first panel. */
static inline void conv_share(conv_job *j, const infold_ctx *ctx, int64_t tile, double staging) {
    const conv_params *p = j->p;
    if (j->pixels == 0) return;
    j->grid = grid_of((infold_work){.rows = j->pixels, .columns = j->panels * p->groups, .group = j->panels, .row_cost = 2 + staging,
                                    .column_cost = 4, .unit = (double)p->taps * (double)p->k * (double)j->nr, .tile = tile,
                                    .block = p->panels_per_block, .staged = staging > 0}, ctx->threads);
    grid_run(ctx, &j->grid, conv_units, j);
}

/* The operands of one group; res may be NULL. */
typedef struct {
    const float *in, *bias, *res;
    float *out;
} conv_group;

static inline conv_group conv_group_of(const conv_job *j, int64_t group) {
    const conv_params *p = j->p;
    const float *res = j->args[RES];
    return (conv_group){
        .in = (const float *)j->args[IN] + group * p->in_group,
        .bias = (const float *)j->args[BIAS] + group * p->bias_group,
        .res = res ? res + group * p->res_group : NULL,
        .out = (float *)j->args[OUT] + group * p->out_group,
    };
}

/* first: the channel of the group that the caller counts as its first */
static inline infold_epilogue conv_epilogue_of(const conv_job *j, int64_t group, int64_t first) {
    return epilogue_of(&j->p->epilogue, j->ctx->kernels, j->args + EPILOGUE, group * j->p->bias_group + first);
}

/* What the epilogue leaves to sweeps, for panels [q0, q1) of the rows c. */
static inline void conv_sweep(const conv_job *j, const infold_epilogue *e, int64_t rows, float *const *c, int64_t q0, int64_t q1) {
    const int64_t first = q0 * j->nr, end = q1 * j->nr < j->p->columns ? q1 * j->nr : j->p->columns;
    epilogue_sweep(e, rows, c, first, end - first);
}

#endif
