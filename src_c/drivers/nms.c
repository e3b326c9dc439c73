/* Non-maximum suppression: of each class's boxes, best first, those that overlap no better one that was kept. The planner brings
 * the order. A box has no area if a side has none, and then overlaps nothing. */
#include "drivers/check.h"
#include "drivers/fault.h"

enum { BOXES, SCORES, INDEX, OUT, COUNT };

typedef struct {
    int64_t batch, classes, boxes;
    int64_t limit, center;  /* boxes kept of a class at most; (x, y, width, height) rather than two corners (y, x) */
    double iou, score;      /* a box overlaps if its intersection over union is above; only scores above count */
} nms_params;

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const nms_params *p = params;
    CHECK(p->limit >= 0 && p->limit <= p->boxes && p->batch >= 0 && p->classes >= 0, INFOLD_EPARAM);
    const int64_t by_image[2] = {p->batch, p->boxes}, by_class[2] = {p->batch, p->classes};
    CHECK(p->boxes <= INT64_MAX / 4, INFOLD_EBOUNDS);
    int64_t image, step[2] = {0, p->boxes}, kept[2] = {0, 3 * p->limit};
    CHECK(!__builtin_mul_overflow(p->classes, p->boxes, step), INFOLD_EBOUNDS);
    CHECK(!__builtin_mul_overflow(p->classes, kept[1], kept) && !__builtin_mul_overflow(p->boxes, 4, &image), INFOLD_EBOUNDS);
    const int64_t box_step[2] = {image, 4};
    CHECK(span_fits(span_repeat(span_of_run(4), 2, by_image, box_step), &e[BOXES], 4), INFOLD_EBOUNDS);
    const infold_span all = span_repeat(span_of_run(p->boxes), 2, by_class, step);
    CHECK(span_fits(all, &e[SCORES], 4) && span_fits(all, &e[INDEX], 8) && work_fits(all, p->limit), INFOLD_EBOUNDS);
    CHECK(span_fits(span_of_run(1), &e[COUNT], 8), INFOLD_EBOUNDS);
    return span_fits(span_repeat(span_of_run(kept[1]), 2, by_class, kept), &e[OUT], 8) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    float low[2], high[2], area;
} box;

static box box_at(const nms_params *p, const float *x) {
    box b;
    for (int i = 0; i < 2; i++) {
        const float u = x[i], v = x[i + 2];
        b.low[i] = p->center ? u - v / 2 : u < v ? u : v;
        b.high[i] = p->center ? u + v / 2 : u < v ? v : u;
    }
    b.area = (b.high[0] - b.low[0]) * (b.high[1] - b.low[1]);
    return b;
}

static bool overlap(const box *a, const box *b, float limit) {
    float side[2];
    for (int i = 0; i < 2; i++) {
        side[i] = (a->high[i] < b->high[i] ? a->high[i] : b->high[i]) - (a->low[i] > b->low[i] ? a->low[i] : b->low[i]);
        if (!(side[i] > 0)) return false;
    }
    const float common = side[0] * side[1], both = a->area + b->area - common;
    return a->area > 0 && b->area > 0 && both > 0 && common / both > limit;
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const nms_params *p = params;
    int64_t *out = args[OUT], found = 0;
    for (int64_t row = 0; row < p->batch * p->classes; row++) {
        const float *boxes = (const float *)args[BOXES] + row / p->classes * p->boxes * 4;
        const float *scores = (const float *)args[SCORES] + row * p->boxes;
        const int64_t *order = (const int64_t *)args[INDEX] + row * p->boxes, first = found;
        for (int64_t i = 0; i < p->boxes && found - first < p->limit; i++) {
            const int64_t at = index_inside(order[i], p->boxes, ctx->fault);
            if (!(scores[at] > (float)p->score)) continue;
            const box candidate = box_at(p, boxes + 4 * at);
            bool kept = true;
            for (int64_t k = first; k < found && kept; k++) {
                const box other = box_at(p, boxes + 4 * out[3 * k + 2]);
                kept = !overlap(&candidate, &other, (float)p->iou);
            }
            if (!kept) continue;
            out[3 * found] = row / p->classes, out[3 * found + 1] = row % p->classes, out[3 * found + 2] = at;
            found++;
        }
    }
    *(int64_t *)args[COUNT] = found;
}

const infold_op infold_op_nms = {
    .name = "nms",
    .params = "batch classes boxes limit center iou:f score:f",
    .args = "boxes scores index out count",
    .params_size = sizeof(nms_params),
    .check = check,
    .run = run,
};
