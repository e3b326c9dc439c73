/* Elements picked or placed by index: for every position x of a space,
 *
 *     gather: other[x] = data[at(x)]; scatter: data[at(x)] = loop(data[at(x)], other[x]);
 *     at(x) = data_stride . x + sum_k index[x][k] * scale[k]
 *
 * ONNX's operators of these names differ in strides only. An index may be computed by the model, so the run itself keeps it in
 * range: negative ones count from the end, what is still outside is a fault. */
#include "drivers/check.h"
#include "drivers/fault.h"
#include "drivers/map.h"
#include "drivers/parallel.h"

enum { D = INFOLD_MAX_DIMS, DATA = 0, INDEX, OTHER, OPERANDS };

static int argument(int operand, bool place) { return place ? OTHER - operand : operand; } /* what is written comes last */

typedef struct {
    int64_t shape[D], stride[OPERANDS][D]; /* the space, and each operand's elements per step */
    int64_t parts, part_stride;            /* numbers that make an index, and elements between them */
    int64_t size[D], scale[D];             /* number k is below size[k], and counts in steps of scale[k] elements of data */
    int64_t loop;                          /* typed: a copy, or for scatter also of two inputs */
} index_params;

static infold_status check(const index_params *p, const infold_extent *e, bool place) {
    const infold_loop *loop = infold_loop_at(p->loop);
    CHECK(loop != NULL && loop->item[0] == loop->item[INFOLD_LOOP_INPUTS] && loop->item[2] == 0, INFOLD_EPARAM);
    CHECK(loop->item[1] == 0 || (place && loop->item[1] == loop->item[0]), INFOLD_EPARAM);
    CHECK(p->parts >= 0 && p->parts <= D, INFOLD_EPARAM);
    for (int k = 0; k < p->parts; k++) CHECK(p->size[k] >= 1, INFOLD_EPARAM);
    for (int i = 0; i < OPERANDS; i++) {
        infold_span span = span_repeat(span_of_run(1), D, p->shape, p->stride[i]);
        if (i == DATA) span = span_repeat(span, (int)p->parts, p->size, p->scale);
        if (i == INDEX) span = span_repeat(span, 1, &p->parts, &p->part_stride);
        CHECK(span_fits(span, &e[argument(i, place)], i == INDEX ? 8 : loop->item[0]), INFOLD_EBOUNDS);
    }
    return INFOLD_OK;
}

typedef struct {
    const index_params *p;
    char *data, *other;
    const int64_t *index;
    int64_t *fault;
    bool place;
} job;

static void rows(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const index_params *p = j->p;
    const infold_loop *loop = infold_loop_at(p->loop);
    const int64_t item = loop->item[0], n = p->shape[D - 1], same = p->stride[INDEX][D - 1] == 0; /* one index for the whole row */
    const int64_t step[OPERANDS] = {p->stride[DATA][D - 1], p->stride[INDEX][D - 1], p->stride[OTHER][D - 1]};
    for (int64_t at = begin; at < end; at++) {
        int64_t offset[OPERANDS] = {0}, rest = at;
        for (int d = D - 2; d >= 0; d--) {
            for (int i = 0; i < OPERANDS; i++) offset[i] += rest % p->shape[d] * p->stride[i][d];
            rest /= p->shape[d];
        }
        for (int64_t i = 0; i < n; i += same ? n : 1) {
            const int64_t *index = j->index + offset[INDEX] + i * step[INDEX];
            int64_t picked = offset[DATA] + i * step[DATA];
            for (int k = 0; k < p->parts; k++)
                picked += index_inside(index[k * p->part_stride], p->size[k], j->fault) * p->scale[k];
            char *data = j->data + picked * item;
            char *other = j->other + (offset[OTHER] + i * step[OTHER]) * item;
            infold_row r = {.in = {data}, .step = {step[DATA] * item}, .out = other, .out_step = step[OTHER] * item};
            if (j->place) {
                const int last = loop->item[1] != 0;
                r.in[last] = other, r.step[last] = step[OTHER] * item;
                r.out = data, r.out_step = step[DATA] * item;
            }
            r.n = same ? n : 1;
            loop->run(&r);
        }
    }
}

static void run(const index_params *p, void *const *args, const infold_ctx *ctx, bool place) {
    const job j = {p, args[argument(DATA, place)], args[argument(OTHER, place)], args[INDEX], ctx->fault, place};
    int64_t count = 1;
    for (int d = 0; d < D - 1; d++) count *= p->shape[d];
    if (p->shape[D - 1] == 0 || count == 0) return;
    if (place) rows(&j, 0, count, 0); /* places may be the same, and their order counts */
    else infold_parallel(ctx, count, 1 + 32768 / p->shape[D - 1], rows, &j);
}

#define OPERATION(kind, place)                                                                                          \
    static infold_status check_##kind(const void *p, const infold_extent *e, const infold_kernels *kernels) {           \
        (void)kernels;                                                                                                  \
        return check(p, e, place);                                                                                      \
    }                                                                                                                   \
    static void run_##kind(const void *p, void *const *args, const infold_ctx *ctx) { run(p, args, ctx, place); }       \
    const infold_op infold_op_##kind = {                                                                                \
        .name = #kind,                                                                                                  \
        .params = "shape[6] data_stride[6] index_stride[6] other_stride[6] parts part_stride size[6] scale[6] loop",    \
        .args = "in index out",                                                                                         \
        .params_size = sizeof(index_params),                                                                            \
        .check = check_##kind,                                                                                          \
        .run = run_##kind,                                                                                              \
    };
OPERATION(gather, false)
OPERATION(scatter, true)
