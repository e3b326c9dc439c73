/* Regions of an NHWC image, pooled in bins. RoiAlign (He et al., Mask R-CNN): a bin is the mean of points inside it, interpolated;
 * the weights of rows and columns are independent of one another, so that is one weighted sum over a rectangle of pixels. Its other
 * mode takes the largest product of a point's neighbour and weight, as ONNX has it. MaxRoiPool (Girshick, Fast R-CNN): the largest of
 * the pixels under the bin. */
#include <math.h>

#include "drivers/check.h"
#include "drivers/fault.h"
#include "drivers/parallel.h"

enum { IN, ROIS, INDEX, OUT };
enum { MEAN, MAX, PIXELS, MODES };
enum { GRID = 512, TAPS = 256, BLOCK = 256 }; /* GRID: points of a bin along an axis, at most */

typedef struct {
    int64_t rois, size[2], pool[2], channels, batch;
    int64_t in_stride[3], out_stride[3]; /* of image, row and column; of region, row and column */
    int64_t mode, sampling, half_pixel;  /* points along an axis (0: one for each pixel under the bin); coordinates less 0.5 */
    double scale;
} roi_params;

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const roi_params *p = params;
    CHECK(p->channels >= 1 && p->mode >= 0 && p->mode < MODES, INFOLD_EPARAM);
    CHECK(p->mode != PIXELS || (p->size[0] <= 2 * GRID && p->size[1] <= 2 * GRID), INFOLD_EPARAM);
    CHECK(p->sampling >= 0 && p->sampling <= GRID && p->size[0] >= 1 && p->size[1] >= 1 && p->batch >= 1, INFOLD_EPARAM);
    const int64_t in_shape[3] = {p->batch, p->size[0], p->size[1]}, out_shape[3] = {p->rois, p->pool[0], p->pool[1]};
    const infold_span run = span_of_run(p->channels);
    CHECK(span_fits(span_repeat(run, 3, in_shape, p->in_stride), &e[IN], 4), INFOLD_EBOUNDS);
    const infold_span out = span_repeat(run, 3, out_shape, p->out_stride);
    int64_t pixels = 1; /* that a bin reads at most */
    for (int i = 0; i < 2; i++) {
        const int64_t taps = 2 * (p->sampling ? p->sampling : GRID);
        pixels *= p->mode != MAX && p->size[i] < taps ? p->size[i] : taps;
    }
    CHECK(span_fits(out, &e[OUT], 4) && work_fits(out, pixels), INFOLD_EBOUNDS);
    const int64_t four = 4;
    CHECK(span_fits(span_repeat(span_of_run(4), 1, &p->rois, &four), &e[ROIS], 4), INFOLD_EBOUNDS);
    return span_fits(span_of_run(p->rois), &e[INDEX], 8) ? INFOLD_OK : INFOLD_EBOUNDS;
}

/* The pixels that a bin reads along one axis and their weights; for a mean each once, in ascending order. */
typedef struct {
    int64_t count, at[2 * GRID];
    float weight[2 * GRID];
} axis;

static void add(axis *a, int64_t at, float weight) {
    int64_t i = a->count;
    while (i > 0 && a->at[i - 1] > at) i--;
    if (i == 0 || a->at[i - 1] != at) a->at[i = a->count++] = at, a->weight[i] = 0, i++;
    a->weight[i - 1] += weight;
}

static void append(axis *a, int64_t at, float weight) { a->at[a->count] = at, a->weight[a->count++] = weight; }

static float clamped(float x, int64_t size) { return x > 0 ? x < (float)size ? x : (float)size : 0; }

/* For the bin of that number from `first` on. */
static void bin_axis(axis *a, int64_t mode, float first, float number, float length, int64_t points, int64_t size) {
    a->count = 0;
    if (mode == PIXELS) {
        const int64_t end = (int64_t)clamped(first + ceilf((number + 1) * length), size);
        for (int64_t at = (int64_t)clamped(first + floorf(number * length), size); at < end; at++) append(a, at, 1);
        return;
    }
    const float begin = first + number * length;
    for (int64_t i = 0; i < points; i++) {
        float x = begin + ((float)i + 0.5f) * length / (float)points;
        const bool outside = !(x >= -1.0f && x <= (float)size);
        if (outside && mode == MAX) append(a, 0, 0);
        if (outside) continue;
        if (x < 0) x = 0;
        int64_t low = (int64_t)x;
        if (low >= size - 1) low = size - 1, x = (float)low;
        const float rest = x - (float)low;
        const int64_t high = low + 1 < size ? low + 1 : low;
        if (mode == MAX) {
            append(a, low, 1 - rest);
            append(a, high, rest);
        } else {
            add(a, low, 1 - rest);
            if (high > low) add(a, high, rest);
        }
    }
}

typedef struct {
    const roi_params *p;
    const infold_ctx *ctx;
    const float *in, *rois;
    const int64_t *index;
    float *out;
} job;

/* NaN if either is. */
static float larger(float a, float b) { return a != a || a >= b ? a : b; }

static void bin(const job *j, const axis *y, const axis *x, float scale, const float *in, float *out) {
    int64_t tap[TAPS];
    float weight[TAPS], part[BLOCK];
    for (int64_t c = 0; c < j->p->channels; c += BLOCK) {
        const int64_t live = j->p->channels - c < BLOCK ? j->p->channels - c : BLOCK, all = y->count * x->count;
        const int64_t mode = j->p->mode, most = mode == MAX ? 1 : TAPS;
        for (int64_t i = 0; i < live; i++) out[c + i] = mode == MEAN || !all ? 0 : -INFINITY;
        for (int64_t at = 0, taps; at < all; at += taps) {
            for (taps = 0; taps < most && at + taps < all; taps++) {
                const int64_t row = (at + taps) / x->count, column = (at + taps) % x->count;
                tap[taps] = y->at[row] * j->p->in_stride[1] + x->at[column] * j->p->in_stride[2];
                weight[taps] = y->weight[row] * x->weight[column] * scale;
            }
            if (mode == PIXELS) j->ctx->kernels->pool_max(live, taps, tap, 1, in + c, 0, part, 0);
            else j->ctx->kernels->pool_weighted(live, taps, tap, weight, in + c, part);
            for (int64_t i = 0; i < live; i++) out[c + i] = mode == MEAN ? out[c + i] + part[i] : larger(out[c + i], part[i]);
        }
    }
}

/* Points along an axis for bins of the given length in pixels. */
static int64_t points_of(const roi_params *p, float length) {
    if (p->sampling) return p->sampling;
    return length > 0 ? length < GRID ? (int64_t)ceilf(length) : GRID : 0;
}

static void regions(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const roi_params *p = j->p;
    const float shift = p->half_pixel ? 0.5f : 0.0f, scale = (float)p->scale;
    const bool pixels = p->mode == PIXELS;
    axis y, x;
    for (int64_t r = begin; r < end; r++) {
        const float *in = j->in + index_inside(j->index[r], p->batch, j->ctx->fault) * p->in_stride[0];
        float first[2], length[2]; /* row, column: of the region, then of a bin */
        int64_t points[2];
        for (int i = 0; i < 2; i++) {
            first[i] = j->rois[4 * r + 1 - i] * scale - shift;
            length[i] = j->rois[4 * r + 3 - i] * scale - shift;
            if (pixels) first[i] = roundf(first[i]), length[i] = roundf(length[i]) + 1;
            length[i] -= first[i];
            if (!p->half_pixel && !(length[i] > 1)) length[i] = 1;
            length[i] /= (float)p->pool[i];
            points[i] = points_of(p, length[i]);
        }
        const float share = p->mode == MEAN && points[0] && points[1] ? 1.0f / (float)(points[0] * points[1]) : 1.0f;
        for (int64_t h = 0; h < p->pool[0]; h++) {
            bin_axis(&y, p->mode, first[0], (float)h, length[0], points[0], p->size[0]);
            for (int64_t w = 0; w < p->pool[1]; w++) {
                bin_axis(&x, p->mode, first[1], (float)w, length[1], points[1], p->size[1]);
                bin(j, &y, &x, share, in, j->out + r * p->out_stride[0] + h * p->out_stride[1] + w * p->out_stride[2]);
            }
        }
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const roi_params *p = params;
    const job j = {p, ctx, args[IN], args[ROIS], args[INDEX], args[OUT]};
    infold_parallel(ctx, p->rois, 1, regions, &j);
}

const infold_op infold_op_roi_align = {
    .name = "roi_align",
    .params = "rois size[2] pool[2] channels batch in_stride[3] out_stride[3] mode sampling half_pixel scale:f",
    .args = "in rois index out",
    .params_size = sizeof(roi_params),
    .check = check,
    .run = run,
};
