/* GridSample: every output pixel is interpolated in an NHWC image at a point that the model computes, in units of half the image
 * from its centre. Nearest (1 tap), linear (2 by 2) and cubic (4 by 4; a = -0.75); points and taps outside are zero, moved to the
 * border, or reflected. */
#include <math.h>

#include "drivers/check.h"
#include "drivers/parallel.h"

enum { IN, GRID, OUT };
enum { ZEROS, BORDER, REFLECTION, PADDINGS };

typedef struct {
    int64_t batch, size[2], points[2], channels;
    int64_t in_stride[3], out_stride[3]; /* of image, row and column */
    int64_t taps, padding, corners;      /* taps along an axis: 1, 2 or 4; corners: -1 and 1 are the centres of border pixels */
} grid_params;

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const grid_params *p = params;
    CHECK((p->taps == 1 || p->taps == 2 || p->taps == 4) && p->padding >= 0 && p->padding < PADDINGS, INFOLD_EPARAM);
    for (int i = 0; i < 2; i++) CHECK(p->size[i] >= 1 && p->size[i] <= 1 << 24, INFOLD_EPARAM); /* exact as float */
    const int64_t in_shape[3] = {p->batch, p->size[0], p->size[1]}, out_shape[3] = {p->batch, p->points[0], p->points[1]};
    const infold_span run = span_of_run(p->channels);
    CHECK(span_fits(span_repeat(run, 3, in_shape, p->in_stride), &e[IN], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_repeat(run, 3, out_shape, p->out_stride), &e[OUT], 4), INFOLD_EBOUNDS);
    int64_t row, image;
    CHECK(!__builtin_mul_overflow(p->points[1], 2, &row) && !__builtin_mul_overflow(p->points[0], row, &image), INFOLD_EBOUNDS);
    const int64_t step[3] = {image, row, 2};
    return span_fits(span_repeat(span_of_run(2), 3, out_shape, step), &e[GRID], 4) ? INFOLD_OK : INFOLD_EBOUNDS;
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
    for (int64_t at = begin; at < end; at++) {
        const float *in = j->in + at / p->points[0] * p->in_stride[0], *grid = j->grid + at * p->points[1] * 2;
        float *out = j->out + at / p->points[0] * p->out_stride[0] + at % p->points[0] * p->out_stride[1];
        for (int64_t w = 0; w < p->points[1]; w++) {
            int64_t x[4], y[4], tap[16], taps = 0;
            float wx[4], wy[4], weight[16];
            axis_taps(p, grid[2 * w], p->size[1], x, wx);
            axis_taps(p, grid[2 * w + 1], p->size[0], y, wy);
            for (int64_t i = 0; i < p->taps * p->taps; i++) {
                const int64_t r = i / p->taps, c = i % p->taps;
                if (wy[r] == 0 || wx[c] == 0) continue;
                tap[taps] = y[r] * p->in_stride[1] + x[c] * p->in_stride[2];
                weight[taps++] = wy[r] * wx[c];
            }
            j->ctx->kernels->pool_weighted(p->channels, taps, tap, weight, in, out + w * p->out_stride[2]);
        }
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const grid_params *p = params;
    const job j = {p, ctx, args[IN], args[GRID], args[OUT]};
    infold_parallel(ctx, p->batch * p->points[0], 1, lines, &j);
}

const infold_op infold_op_grid_sample = {
    .name = "grid_sample",
    .params = "batch size[2] points[2] channels in_stride[3] out_stride[3] taps padding corners",
    .args = "in grid out",
    .params_size = sizeof(grid_params),
    .check = check,
    .run = run,
};
