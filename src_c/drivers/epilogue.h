/* How convolutions and products end: an activation, then a map per channel (a BatchNorm behind the activation) with a clamp,
 *     out = min(post_hi, max(post_lo, act(x) * scale + shift)).
 * A clamp is applied in registers; the rest in sweeps over the tile while it is in the first-level cache. */
#ifndef INFOLD_EPILOGUE_H
#define INFOLD_EPILOGUE_H

#include "drivers/activation.h"
#include "drivers/check.h"

#define EPILOGUE_PARAMS "act a:f b:f post_lo:f post_hi:f"
#define EPILOGUE_ARGS "slope? scale? shift?"

typedef struct {
    int64_t act;
    double a, b; /* activation parameters; for CLIP the bounds */
    double post_lo, post_hi;
} epilogue_params;

/* args: slope, scale, shift; each, where it is given, `channels` floats in each of `groups`, `step` apart. */
static inline infold_status epilogue_check(const epilogue_params *p, const infold_extent *args, int64_t channels, int64_t groups,
                                           int64_t step) {
    CHECK(p->act >= 0 && p->act < INFOLD_ACT_COUNT, INFOLD_EPARAM);
    const infold_span vectors = span_repeat(span_of_run(channels), 1, &groups, &step);
    if (p->act == INFOLD_PRELU) CHECK(span_fits(vectors, &args[0], 4), INFOLD_EBOUNDS);
    if (arg_given(&args[1]) || arg_given(&args[2]))
        CHECK(span_fits(vectors, &args[1], 4) && span_fits(vectors, &args[2], 4), INFOLD_EBOUNDS);
    return INFOLD_OK;
}

typedef struct {
    const epilogue_params *p;
    const infold_kernels *kernels;
    infold_activation act;
    const float *slope, *scale, *shift;
} infold_epilogue;

/* args as in epilogue_check; first: the channel in them that the driver counts as its first. */
static inline infold_epilogue epilogue_of(const epilogue_params *p, const infold_kernels *kernels, void *const *args, int64_t first) {
    const float *v[3];
    for (int i = 0; i < 3; i++) v[i] = args[i] ? (const float *)args[i] + first : NULL;
    return (infold_epilogue){p, kernels, activation_of(p->act, p->a, p->b), v[0], v[1], v[2]};
}

static inline bool epilogue_sweeps(const infold_epilogue *e) { return e->act.late || e->scale; }

/* The sweeps over m stored pixels, `step` apart: their channels [first, first + n), which begin at x. */
static inline void epilogue_sweep_even(const infold_epilogue *e, int64_t m, float *x, int64_t step, int64_t first, int64_t n) {
    const epilogue_params *p = e->p;
    if (e->act.late)
        e->kernels->act((infold_act)p->act, m, n, x, step, x, step, e->slope ? e->slope + first : NULL, (float)p->a, (float)p->b);
    if (e->scale)
        e->kernels->affine(m, n, x, step, e->scale + first, e->shift + first, 0, 1, (float)p->post_lo, (float)p->post_hi, x, step);
}

/* The same over pixels that lie anywhere, stretch by even stretch: calls for a few numbers each would take longer than their
 * work. */
static inline void epilogue_sweep(const infold_epilogue *e, int64_t m, float *const *pixels, int64_t first, int64_t n) {
    if (!epilogue_sweeps(e)) return;
    for (int64_t i = 0, even; i < m; i += even) {
        const int64_t step = i + 1 < m ? pixels[i + 1] - pixels[i] : 0;
        even = 1;
        while (i + even < m && pixels[i + even] - pixels[i + even - 1] == step) even++;
        epilogue_sweep_even(e, even, pixels[i] + first, step, first, n);
    }
}

/* The sweeps over m rows of n numbers, and what they give rounded to the rows of bf16 numbers `out`. The epilogue's first channel
 * is the rows'. */
static inline void epilogue_round(const infold_epilogue *e, const infold_bf16 *bf16, int64_t m, float *const *rows, uint16_t *const *out,
                                  int64_t n) {
    const epilogue_params *p = e->p;
    if (e->scale) epilogue_sweep(e, m, rows, 0, n);
    for (int64_t i = 0; i < m; i++)
        bf16->act(e->scale ? INFOLD_IDENTITY : (infold_act)p->act, 1, n, rows[i], 0, out[i], 0, e->slope, (float)p->a, (float)p->b);
}

#endif
