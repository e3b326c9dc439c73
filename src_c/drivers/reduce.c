/* Reductions over up to four dimensions, keeping up to four. Two ways: whole vectors of results where the last kept dimension
 * is contiguous (pooling of an NHWC image), whole vectors of input where the last reduced one is. */
#include <math.h>
#include <string.h>

#include "drivers/check.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

typedef struct {
    int64_t kept[4], reduced[4];
    int64_t in_kept[4], in_reduced[4], out_stride[4]; /* elements per step of kept and of reduced */
    int64_t op;
    int64_t half; /* whether the input holds bf16 numbers, not float32 */
} reduce_params;

enum { IN, OUT, COLUMNS = 256 };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const reduce_params *p = params;
    CHECK(p->op >= 0 && p->op < INFOLD_REDUCTION_COUNT, INFOLD_EPARAM);
    const infold_span in = span_repeat(span_repeat(span_of_run(1), 4, p->reduced, p->in_reduced), 4, p->kept, p->in_kept);
    CHECK(p->half == 0 || (p->half == 1 && p->in_kept[3] == 1 && p->kept[3] > 1), INFOLD_EPARAM); /* whole vectors of results */
    CHECK(span_fits(in, &e[IN], 4 - 2 * p->half), INFOLD_EBOUNDS);
    return span_fits(span_repeat(span_of_run(1), 4, p->kept, p->out_stride), &e[OUT], 4) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    const reduce_params *p;
    const infold_kernels *kernels;
    const infold_bf16 *bf16;
    const void *in;
    float *out;
    int64_t width, chunks; /* columns: how many results a work item makes, and items per row of kept[3] */
} job;

/* What is summed or compared; the rest of the operation happens to its result. */
static infold_reduction accumulation(int64_t op) {
    switch (op) {
    case INFOLD_REDUCE_MEAN:
    case INFOLD_REDUCE_LOG_SUM: return INFOLD_REDUCE_SUM;
    case INFOLD_REDUCE_L2: return INFOLD_REDUCE_SUM_SQUARE;
    default: return (infold_reduction)op;
    }
}

static float finish(const reduce_params *p, double value, float shift) {
    switch (p->op) {
    case INFOLD_REDUCE_MEAN: return (float)(value / (double)pixel_count(p->reduced));
    case INFOLD_REDUCE_L2: return (float)sqrt(value);
    case INFOLD_REDUCE_LOG_SUM: return (float)log(value);
    case INFOLD_REDUCE_LOG_SUM_EXP: return (float)(log(value) + (double)shift);
    default: return (float)value;
    }
}

static double start(infold_reduction kind) {
    return kind == INFOLD_REDUCE_MAX    ? -INFINITY
           : kind == INFOLD_REDUCE_MIN  ? INFINITY
           : kind == INFOLD_REDUCE_PROD ? 1.0
                                        : 0.0;
}

/* exp is taken of x - shift: the maximum where it is a number to subtract. */
static float shift_of(float top) { return isfinite(top) ? top : 0.0f; }

/* n neighbouring results, each over `shape` elements. */
static void accumulate_columns(const job *j, infold_reduction kind, const int64_t shape[4], const int64_t stride[4],
                               const void *in, int64_t n, const float *shift, float *acc, float *comp) {
    int64_t tap[INFOLD_REDUCE_BLOCK];
    const int64_t count = pixel_count(shape);
    for (int64_t i = 0; i < n; i++) acc[i] = (float)start(kind), comp[i] = 0.0f;
    infold_pixel x = {{0}};
    for (int64_t at = 0; at < count;) {
        int64_t taps = 0;
        for (int64_t run; taps < INFOLD_REDUCE_BLOCK && at < count; at += run, taps += run) {
            const int64_t room = INFOLD_REDUCE_BLOCK - taps, left = shape[3] - x.index[3], first = pixel_offset(&x, stride);
            run = room < left ? room : left;
            for (int64_t i = 0; i < run; i++) tap[taps + i] = first + i * stride[3];
            x.index[3] += run - 1;
            pixel_next(&x, shape);
        }
        (j->p->half ? j->bf16->reduce_columns : j->kernels->reduce_columns)(kind, n, taps, tap, in, shift, acc, comp);
    }
}

static void columns(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const reduce_params *p = j->p;
    float acc[COLUMNS], comp[COLUMNS], shift[COLUMNS] = {0};
    for (int64_t at = begin; at < end; at++) {
        const int64_t rows[4] = {p->kept[0], p->kept[1], p->kept[2], j->chunks};
        infold_pixel x = pixel_at(rows, at);
        const int64_t first = x.index[3] *= j->width, left = p->kept[3] - first, n = left < j->width ? left : j->width;
        const void *in = (const char *)j->in + (4 - 2 * p->half) * pixel_offset(&x, p->in_kept);
        float *out = j->out + pixel_offset(&x, p->out_stride);
        if (p->op == INFOLD_REDUCE_LOG_SUM_EXP) {
            accumulate_columns(j, INFOLD_REDUCE_MAX, p->reduced, p->in_reduced, in, n, shift, acc, comp);
            for (int64_t i = 0; i < n; i++) shift[i] = shift_of(acc[i]);
        }
        accumulate_columns(j, accumulation(p->op), p->reduced, p->in_reduced, in, n, shift, acc, comp);
        for (int64_t i = 0; i < n; i++) out[i * p->out_stride[3]] = finish(p, (double)acc[i] + (double)comp[i], shift[i]);
    }
}

static double join(infold_reduction kind, double a, double b) {
    switch (kind) {
    case INFOLD_REDUCE_MAX: return isnan(a) || a > b ? a : b;
    case INFOLD_REDUCE_MIN: return isnan(a) || a < b ? a : b;
    case INFOLD_REDUCE_PROD: return a * b;
    default: return a + b;
    }
}

/* One result from runs of reduced[3] contiguous elements. Many short ones (a group of channels under every pixel) are laid over one
 * another as columns first. */
static double accumulate_runs(const job *j, infold_reduction kind, const float *in, float shift) {
    const reduce_params *p = j->p;
    const int64_t outer[4] = {1, p->reduced[0], p->reduced[1], p->reduced[2]}, n = p->reduced[3];
    const int64_t step[4] = {0, p->in_reduced[0], p->in_reduced[1], p->in_reduced[2]};
    double total = start(kind);
    if (n <= COLUMNS && pixel_count(outer) >= INFOLD_REDUCE_BLOCK) {
        float acc[COLUMNS], comp[COLUMNS], shifts[COLUMNS] = {0};
        for (int64_t i = 0; i < n; i++) shifts[i] = shift;
        accumulate_columns(j, kind, outer, step, in, n, shifts, acc, comp);
        for (int64_t i = 0; i < n; i++) total = join(kind, total, (double)acc[i] + (double)comp[i]);
        return total;
    }
    infold_pixel x = {{0}};
    for (int64_t at = pixel_count(outer); at > 0; at--, pixel_next(&x, outer))
        total = join(kind, total, j->kernels->reduce_run(kind, n, in + pixel_offset(&x, step), shift));
    return total;
}

static void runs(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const reduce_params *p = j->p;
    infold_pixel x = pixel_at(p->kept, begin);
    for (int64_t at = begin; at < end; at++, pixel_next(&x, p->kept)) {
        const float *in = (const float *)j->in + pixel_offset(&x, p->in_kept);
        float shift = 0.0f;
        if (p->op == INFOLD_REDUCE_LOG_SUM_EXP) shift = shift_of((float)accumulate_runs(j, INFOLD_REDUCE_MAX, in, shift));
        j->out[pixel_offset(&x, p->out_stride)] = finish(p, accumulate_runs(j, accumulation(p->op), in, shift), shift);
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const reduce_params *p = params;
    const int64_t size = pixel_count(p->reduced);
    job j = {p, ctx->kernels, ctx->bf16, args[IN], args[OUT], 1, p->kept[3]};
    const bool across = p->in_kept[3] == 1 && p->kept[3] > 1;
    if (!across && p->in_reduced[3] == 1) {
        infold_parallel(ctx, pixel_count(p->kept), 1 + 32768 / (size + 1), runs, &j);
        return;
    }
    const int64_t rows = p->kept[0] * p->kept[1] * p->kept[2];
    if (rows == 0) return;
    if (across) { /* as many chunks for each thread, of whole cache lines */
        const int64_t each = rows < ctx->threads ? (ctx->threads + rows - 1) / rows : 1;
        const int64_t least = (p->kept[3] + COLUMNS - 1) / COLUMNS;
        const int64_t chunks = (least + each - 1) / each * each;
        j.width = ((p->kept[3] + chunks - 1) / chunks + INFOLD_MAX_LANES - 1) / INFOLD_MAX_LANES * INFOLD_MAX_LANES;
    }
    j.chunks = (p->kept[3] + j.width - 1) / j.width;
    infold_parallel(ctx, rows * j.chunks, 1 + 32768 / (size * j.width + 1), columns, &j);
}

const infold_op infold_op_reduce = {
    .name = "reduce",
    .params = "kept[4] reduced[4] in_kept[4] in_reduced[4] out_stride[4] op half",
    .args = "in out",
    .params_size = sizeof(reduce_params),
    .check = check,
    .run = run,
};
