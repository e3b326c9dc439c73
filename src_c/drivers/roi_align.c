/* RoiAlign (He et al., Mask R-CNN): each bin of a region is the mean of points inside it, interpolated in an NHWC image. The
 * weights of rows and columns are independent of one another, so a bin is one weighted sum over a rectangle of pixels. */
#include <math.h>
#include <string.h>

#include "drivers/check.h"
#include "drivers/fault.h"
#include "drivers/parallel.h"

enum { IN, ROIS, INDEX, OUT };
enum { GRID = 512, TAPS = 256, BLOCK = 256 }; /* GRID: points of a bin along an axis, at most */

typedef struct {
    int64_t rois, size[2], pool[2], channels, batch;
    int64_t in_stride[3], out_stride[3]; /* of image, row and column; of region, row and column */
    int64_t sampling, half_pixel;        /* points along an axis (0: one for each pixel under the bin); coordinates less 0.5 */
    double scale;
} roi_params;

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const roi_params *p = params;
    CHECK(p->sampling >= 0 && p->sampling <= GRID && p->size[0] >= 1 && p->size[1] >= 1 && p->batch >= 1, INFOLD_EPARAM);
    const int64_t in_shape[3] = {p->batch, p->size[0], p->size[1]}, out_shape[3] = {p->rois, p->pool[0], p->pool[1]};
    const infold_span run = span_of_run(p->channels);
    CHECK(span_fits(span_repeat(run, 3, in_shape, p->in_stride), &e[IN], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_repeat(run, 3, out_shape, p->out_stride), &e[OUT], 4), INFOLD_EBOUNDS);
    const int64_t four = 4;
    CHECK(span_fits(span_repeat(span_of_run(4), 1, &p->rois, &four), &e[ROIS], 4), INFOLD_EBOUNDS);
    return span_fits(span_of_run(p->rois), &e[INDEX], 8) ? INFOLD_OK : INFOLD_EBOUNDS;
}

/* The pixels that the points of a bin read along one axis, in ascending order, and their weights. */
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

static void bin_axis(axis *a, float begin, float length, int64_t points, int64_t size) {
    a->count = 0;
    for (int64_t i = 0; i < points; i++) {
        float x = begin + ((float)i + 0.5f) * length / (float)points;
        if (!(x >= -1.0f && x <= (float)size)) continue;
        if (x < 0) x = 0;
        int64_t low = (int64_t)x;
        if (low >= size - 1) low = size - 1, x = (float)low;
        const float rest = x - (float)low;
        add(a, low, 1 - rest);
        if (low + 1 < size) add(a, low + 1, rest);
    }
}

typedef struct {
    const roi_params *p;
    const infold_ctx *ctx;
    const float *in, *rois;
    const int64_t *index;
    float *out;
} job;

static void bin(const job *j, const axis *y, const axis *x, float scale, const float *in, float *out) {
    int64_t tap[TAPS];
    float weight[TAPS], part[BLOCK];
    for (int64_t c = 0; c < j->p->channels; c += BLOCK) {
        const int64_t live = j->p->channels - c < BLOCK ? j->p->channels - c : BLOCK, all = y->count * x->count;
        memset(out + c, 0, sizeof(float) * (size_t)live);
        for (int64_t at = 0, taps; at < all; at += taps) {
            for (taps = 0; taps < TAPS && at + taps < all; taps++) {
                const int64_t row = (at + taps) / x->count, column = (at + taps) % x->count;
                tap[taps] = y->at[row] * j->p->in_stride[1] + x->at[column] * j->p->in_stride[2];
                weight[taps] = y->weight[row] * x->weight[column] * scale;
            }
            j->ctx->kernels->pool_weighted(live, taps, tap, weight, in + c, part);
            for (int64_t i = 0; i < live; i++) out[c + i] += part[i];
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
    const float shift = p->half_pixel ? 0.5f : 0.0f;
    axis y, x;
    for (int64_t r = begin; r < end; r++) {
        const float *in = j->in + index_inside(j->index[r], p->batch, j->ctx->fault) * p->in_stride[0];
        float first[2], length[2]; /* row, column: of the region, then of a bin */
        int64_t points[2];
        for (int i = 0; i < 2; i++) {
            first[i] = j->rois[4 * r + 1 - i] * (float)p->scale - shift;
            length[i] = j->rois[4 * r + 3 - i] * (float)p->scale - shift - first[i];
            if (!p->half_pixel && !(length[i] > 1)) length[i] = 1;
            length[i] /= (float)p->pool[i];
            points[i] = points_of(p, length[i]);
        }
        const float scale = points[0] && points[1] ? 1.0f / (float)(points[0] * points[1]) : 0.0f;
        for (int64_t h = 0; h < p->pool[0]; h++) {
            bin_axis(&y, first[0] + (float)h * length[0], length[0], points[0], p->size[0]);
            for (int64_t w = 0; w < p->pool[1]; w++) {
                bin_axis(&x, first[1] + (float)w * length[1], length[1], points[1], p->size[1]);
                bin(j, &y, &x, scale, in, j->out + r * p->out_stride[0] + h * p->out_stride[1] + w * p->out_stride[2]);
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
    .params = "rois size[2] pool[2] channels batch in_stride[3] out_stride[3] sampling half_pixel scale:f",
    .args = "in rois index out",
    .params_size = sizeof(roi_params),
    .check = check,
    .run = run,
};
