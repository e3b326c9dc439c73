/* GridSample: every output pixel is interpolated in a channels-last image or volume at a point that the model computes, in units of
 * half the image from its centre. Nearest (1 tap along an axis), linear (2) and, in images, cubic (4; a = -0.75); points and taps
 * outside are zero, moved to the border, or reflected. An image is a volume of depth 1 whose points say nothing of it. */
#include <math.h>

#include "drivers/check.h"
#include "drivers/parallel.h"

enum { IN, GRID, OUT };
enum { ZEROS, BORDER, REFLECTION, PADDINGS };

typedef struct {
    int64_t batch, size[3], points[3], channels;
    int64_t in_stride[4], out_stride[4]; /* of image, plane, row and column */
    int64_t axes;                        /* that a point tells of: 2 or 3 */
    int64_t taps, padding, corners;      /* taps along an axis: 1, 2 or 4; corners: -1 and 1 are the centres of border pixels */
} grid_params;

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const grid_params *p = params;
    CHECK(p->channels >= 1, INFOLD_EPARAM); /* without elements nothing bounds the strides */
    CHECK((p->taps == 1 || p->taps == 2 || p->taps == 4) && p->padding >= 0 && p->padding < PADDINGS, INFOLD_EPARAM);
    CHECK(p->axes == 3 ? p->taps < 4 : p->axes == 2 && p->size[0] == 1 && p->points[0] == 1, INFOLD_EPARAM);
    for (int i = 0; i < 3; i++) CHECK(p->size[i] >= 1 && p->size[i] <= 1 << 24, INFOLD_EPARAM); /* exact as float */
    const int64_t in_shape[4] = {p->batch, p->size[0], p->size[1], p->size[2]};
    const int64_t out_shape[4] = {p->batch, p->points[0], p->points[1], p->points[2]};
    const infold_span run = span_of_run(p->channels);
    CHECK(span_fits(span_repeat(run, 4, in_shape, p->in_stride), &e[IN], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_repeat(run, 4, out_shape, p->out_stride), &e[OUT], 4), INFOLD_EBOUNDS);
    int64_t step[4] = {0, 0, 0, p->axes};
    for (int i = 2; i >= 0; i--) CHECK(!__builtin_mul_overflow(p->points[i], step[i + 1], &step[i]), INFOLD_EBOUNDS);
    return span_fits(span_repeat(span_of_run(p->axes), 4, out_shape, step), &e[GRID], 4) ? INFOLD_OK : INFOLD_EBOUNDS;
}

/* x folded back between the ends, which lie at low and high */
static float reflected(float x, float low, float high) {
    const float span = high - low;
    if (!(span > 0)) return low;
    const float away = fabsf(x - low), turns = floorf(away / span), rest = away - turns * span;
    return fmodf(turns, 2) == 0 ? low + rest : high - rest;
}

static float padded(const grid_params *p, float x, int64_t size) {
    const float last = (float)(size - 1);
    if (p->padding == REFLECTION) x = p->corners ? reflected(x, 0, last) : reflected(x, -0.5f, last + 0.5f);
    if (p->padding != ZEROS) x = x > 0 ? x < last ? x : last : 0; /* NaN becomes 0 */
    return x;
}

/* Pixels and weights along one axis; a weight is 0 where there is no pixel. */
static void axis_taps(const grid_params *p, float x, int64_t size, int64_t at[4], float weight[4]) {
    x = p->corners ? (x + 1) / 2 * (float)(size - 1) : ((x + 1) * (float)size - 1) / 2;
    if (p->taps < 4) x = padded(p, x, size);
    if (p->taps == 1) x = nearbyintf(x);
    const float floor = floorf(x), t = x - floor, a = -0.75f;
    const float u[4] = {t + 1, t, 1 - t, 2 - t};
    for (int64_t i = 0; i < p->taps; i++) {
        const float place = floor + (float)(p->taps == 4 ? i - 1 : i);
        const float inside = p->taps == 4 ? padded(p, place, size) : place;
        const bool exists = inside >= 0 && inside <= (float)(size - 1);
        at[i] = exists ? (int64_t)inside : 0;
        const float near = ((a + 2) * u[i] - (a + 3)) * u[i] * u[i] + 1, far = ((a * u[i] - 5 * a) * u[i] + 8 * a) * u[i] - 4 * a;
        weight[i] = !exists ? 0 : p->taps == 1 ? 1 : p->taps == 2 ? (i ? t : 1 - t) : i == 1 || i == 2 ? near : far;
    }
}

typedef struct {
    const grid_params *p;
    const infold_ctx *ctx;
    const float *in, *grid;
    float *out;
} job;

static void lines(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const grid_params *p = j->p;
    const int64_t depth = p->axes == 3 ? p->taps : 1, points[3] = {p->points[0], p->points[1], p->points[2]};
    for (int64_t at = begin; at < end; at++) { /* a row of points */
        const int64_t row = at % points[1], plane = at / points[1] % points[0], image = at / points[1] / points[0];
        const float *in = j->in + image * p->in_stride[0], *grid = j->grid + at * points[2] * p->axes;
        float *out = j->out + image * p->out_stride[0] + plane * p->out_stride[1] + row * p->out_stride[2];
        for (int64_t w = 0; w < points[2]; w++, grid += p->axes) {
            int64_t x[4], y[4], z[4] = {0}, tap[16], taps = 0;
            float wx[4], wy[4], wz[4] = {1}, weight[16];
            axis_taps(p, grid[0], p->size[2], x, wx);
            axis_taps(p, grid[1], p->size[1], y, wy);
            if (p->axes == 3) axis_taps(p, grid[2], p->size[0], z, wz);
            for (int64_t i = 0; i < depth * p->taps * p->taps; i++) {
                const int64_t c = i % p->taps, r = i / p->taps % p->taps, d = i / p->taps / p->taps;
                if (wz[d] == 0 || wy[r] == 0 || wx[c] == 0) continue;
                tap[taps] = z[d] * p->in_stride[1] + y[r] * p->in_stride[2] + x[c] * p->in_stride[3];
                weight[taps++] = wz[d] * wy[r] * wx[c];
            }
            j->ctx->kernels->pool_weighted(p->channels, taps, tap, weight, in, out + w * p->out_stride[3]);
        }
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const grid_params *p = params;
    const job j = {p, ctx, args[IN], args[GRID], args[OUT]};
    infold_parallel(ctx, p->batch * p->points[0] * p->points[1], 1, lines, &j);
}

const infold_op infold_op_grid_sample = {
    .name = "grid_sample",
    .params = "batch size[3] points[3] channels in_stride[4] out_stride[4] axes taps padding corners",
    .args = "in grid out",
    .params_size = sizeof(grid_params),
    .check = check,
    .run = run,
};
