/* The first k of each row in ascending or descending order, as indices: TopK, ArgMax, ArgMin, and the order in which boxes are
 * suppressed. Equal elements keep their order; NaN counts as the greatest. A heap of the k best so far, its root the last of them,
 * lies in the result itself. */
#include "drivers/check.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

enum { IN, OUT };
typedef enum { F32, F64, I64, TYPES } element;

typedef struct {
    int64_t n[4], in_stride[4]; /* rows */
    int64_t length, step;       /* elements of a row, and from one to the next in memory */
    int64_t k, largest, type;   /* the result: k indices for each row, one row behind the other */
} order_params;

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const order_params *p = params;
    CHECK(p->type >= 0 && p->type < TYPES && p->k >= 1 && p->k <= p->length, INFOLD_EPARAM);
    const infold_span in = span_repeat(span_repeat(span_of_run(1), 1, &p->length, &p->step), 4, p->n, p->in_stride);
    CHECK(span_fits(in, &e[IN], p->type == F32 ? 4 : 8), INFOLD_EBOUNDS);
    int64_t rows = 1;
    for (int i = 0; i < 4; i++) CHECK(p->n[i] >= 0 && !__builtin_mul_overflow(rows, p->n[i], &rows), INFOLD_EBOUNDS);
    return span_fits(span_repeat(span_of_run(p->k), 1, &rows, &p->k), &e[OUT], 8) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    const char *x;
    int64_t step; /* bytes */
    bool largest;
} line;

#define INLINE static inline __attribute__((always_inline))
#define PRECEDES(T)                                                                                                     \
    const T u = *(const T *)(r->x + a * r->step), v = *(const T *)(r->x + b * r->step);                                 \
    if (u == v || (u != u && v != v)) return a < b;                                                                     \
    if (u != u || v != v) return (u != u) == r->largest;                                                                \
    return r->largest ? u > v : u < v

INLINE bool precedes(const line *r, element type, int64_t a, int64_t b) {
    if (type == F32) {
        PRECEDES(float);
    } else if (type == F64) {
        PRECEDES(double);
    } else {
        PRECEDES(int64_t);
    }
}

/* heap[at] sinks until it comes behind both of its children. */
INLINE void sink(const line *r, element type, int64_t *heap, int64_t size, int64_t at) {
    const int64_t moved = heap[at];
    for (int64_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && precedes(r, type, heap[child], heap[child + 1])) child++;
        if (!precedes(r, type, moved, heap[child])) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

INLINE void first_of(const line *r, element type, int64_t length, int64_t k, int64_t *out) {
    for (int64_t i = 0; i < k; i++) out[i] = i;
    for (int64_t i = k / 2; i > 0; i--) sink(r, type, out, k, i - 1);
    for (int64_t i = k; i < length; i++) {
        if (!precedes(r, type, i, out[0])) continue;
        out[0] = i;
        sink(r, type, out, k, 0);
    }
    for (int64_t size = k - 1; size > 0; size--) {
        const int64_t last = out[0];
        out[0] = out[size], out[size] = last;
        sink(r, type, out, size, 0);
    }
}

typedef struct {
    const order_params *p;
    const char *in;
    int64_t *out;
} job;

static void rows(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const order_params *p = j->p;
    const int64_t item = p->type == F32 ? 4 : 8;
    infold_pixel x = pixel_at(p->n, begin);
    for (int64_t at = begin; at < end; at++, pixel_next(&x, p->n)) {
        const line r = {j->in + pixel_offset(&x, p->in_stride) * item, p->step * item, p->largest != 0};
        int64_t *out = j->out + at * p->k;
        switch (p->type) {
        case F32: first_of(&r, F32, p->length, p->k, out); break;
        case F64: first_of(&r, F64, p->length, p->k, out); break;
        default: first_of(&r, I64, p->length, p->k, out);
        }
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const order_params *p = params;
    const job j = {p, args[IN], args[OUT]};
    infold_parallel(ctx, pixel_count(p->n), 1 + 8192 / p->length, rows, &j);
}

const infold_op infold_op_order = {
    .name = "order",
    .params = "n[4] in_stride[4] length step k largest type",
    .args = "in out",
    .params_size = sizeof(order_params),
    .check = check,
    .run = run,
};
