/* Rows picked by an index tensor: out[o][i][:] = in[o][index[i]][:]. Indices may be computed by the model, so the run itself
 * keeps them in range: negative ones count from the end, what is still outside is a fault of the run. */
#include <string.h>

#include "drivers/check.h"
#include "drivers/fault.h"
#include "drivers/parallel.h"

typedef struct {
    int64_t outer, count, size;     /* size: rows to choose from */
    int64_t row;                    /* contiguous elements of a row */
    int64_t in_outer, in_row;       /* elements between steps of outer, and between rows */
    int64_t out_outer, out_row;
    int64_t item;                   /* bytes of an element */
} gather_params;

enum { IN, INDEX, OUT };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const gather_params *p = params;
    CHECK(p->item == 1 || p->item == 2 || p->item == 4 || p->item == 8, INFOLD_EPARAM);
    CHECK(p->size >= 1 || p->outer == 0 || p->count == 0 || p->row == 0, INFOLD_EPARAM);
    const int64_t in_shape[2] = {p->outer, p->size}, in_stride[2] = {p->in_outer, p->in_row};
    const int64_t out_shape[2] = {p->outer, p->count}, out_stride[2] = {p->out_outer, p->out_row};
    const infold_span row = span_of_run(p->row);
    CHECK(span_fits(span_repeat(row, 2, in_shape, in_stride), &e[IN], p->item), INFOLD_EBOUNDS);
    CHECK(span_fits(span_repeat(row, 2, out_shape, out_stride), &e[OUT], p->item), INFOLD_EBOUNDS);
    return span_fits(span_of_run(p->count), &e[INDEX], 8) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    const gather_params *p;
    void *const *args;
    int64_t *fault;
} job;

static void rows(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const gather_params *p = j->p;
    const size_t bytes = (size_t)(p->row * p->item);
    for (int64_t at = begin; at < end; at++) {
        const int64_t o = at / p->count, i = at % p->count;
        const int64_t index = index_inside(((const int64_t *)j->args[INDEX])[i], p->size, j->fault);
        const char *in = (const char *)j->args[IN] + (o * p->in_outer + index * p->in_row) * p->item;
        memcpy((char *)j->args[OUT] + (o * p->out_outer + i * p->out_row) * p->item, in, bytes);
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const gather_params *p = params;
    const job j = {p, args, ctx->fault};
    if (p->row > 0) infold_parallel(ctx, p->outer * p->count, 1 + 32768 / p->row, rows, &j);
}

const infold_op infold_op_gather = {
    .name = "gather",
    .params = "outer count size row in_outer in_row out_outer out_row item",
    .args = "in index out",
    .params_size = sizeof(gather_params),
    .check = check,
    .run = run,
};
