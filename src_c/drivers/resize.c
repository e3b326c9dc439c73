/* Resampling of an NHWC image: every output pixel is a weighted sum of taps_y * taps_x input pixels, whose rows, columns and
 * weights the planner put into tables (nearest: 1 tap, linear: 2, cubic: 4, antialiased: more). */
#include <string.h>

#include "drivers/check.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

enum { MAX_TAPS = 4096 };

typedef struct {
    int64_t n[3], in_stride[3], out_stride[3]; /* output pixels: batch, height, width; in_stride per input pixel */
    int64_t in_size[2], taps[2];
    int64_t channels;
} resize_params;

enum { IN, ROW, ROW_WEIGHT, COLUMN, COLUMN_WEIGHT, OUT };

/* The table is a constant whose every index lies inside the image. */
static infold_status check_table(const infold_extent *index, const infold_extent *weight, int64_t count, int64_t taps,
                                 int64_t size) {
    const int64_t shape[1] = {count}, stride[1] = {taps};
    const infold_span table = span_repeat(span_of_run(taps), 1, shape, stride);
    if (table.empty) return INFOLD_OK;
    CHECK(index->ptr, INFOLD_EMISSING);
    CHECK(span_fits(table, index, 8) && span_fits(table, weight, 4), INFOLD_EBOUNDS);
    for (int64_t i = 0; i < count * taps; i++) {
        const int64_t at = ((const int64_t *)index->ptr)[i];
        CHECK(at >= 0 && at < size, INFOLD_EBOUNDS);
    }
    return INFOLD_OK;
}

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const resize_params *p = params;
    CHECK(p->channels >= 1, INFOLD_EPARAM); /* without elements nothing bounds the strides */
    for (int i = 0; i < 2; i++) CHECK(p->taps[i] >= 1 && p->taps[i] <= MAX_TAPS && p->in_size[i] >= 0, INFOLD_EPARAM);
    CHECK(p->taps[0] * p->taps[1] <= MAX_TAPS, INFOLD_EPARAM);
    const int64_t in_shape[3] = {p->n[0], p->in_size[0], p->in_size[1]};
    const infold_span run = span_of_run(p->channels);
    CHECK(span_fits(span_repeat(run, 3, in_shape, p->in_stride), &e[IN], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_repeat(run, 3, p->n, p->out_stride), &e[OUT], 4), INFOLD_EBOUNDS);
    const infold_status rows = check_table(&e[ROW], &e[ROW_WEIGHT], p->n[1], p->taps[0], p->in_size[0]);
    return rows != INFOLD_OK ? rows : check_table(&e[COLUMN], &e[COLUMN_WEIGHT], p->n[2], p->taps[1], p->in_size[1]);
}

typedef struct {
    const resize_params *p;
    const infold_kernels *kernels;
    void *const *args;
} job;

static void lines(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const resize_params *p = j->p;
    int64_t tap[MAX_TAPS];
    float weight[MAX_TAPS];
    const int64_t ty = p->taps[0], tx = p->taps[1];
    for (int64_t at = begin; at < end; at++) {
        const int64_t image = at / p->n[1], y = at % p->n[1];
        const int64_t *row = (const int64_t *)j->args[ROW] + y * ty;
        const float *row_weight = (const float *)j->args[ROW_WEIGHT] + y * ty;
        const float *in = (const float *)j->args[IN] + image * p->in_stride[0];
        float *out = (float *)j->args[OUT] + image * p->out_stride[0] + y * p->out_stride[1];
        for (int64_t x = 0; x < p->n[2]; x++, out += p->out_stride[2]) {
            const int64_t *column = (const int64_t *)j->args[COLUMN] + x * tx;
            const float *column_weight = (const float *)j->args[COLUMN_WEIGHT] + x * tx;
            if (ty * tx == 1) {
                const float *pixel = in + row[0] * p->in_stride[1] + column[0] * p->in_stride[2];
                memcpy(out, pixel, (size_t)p->channels * sizeof *out);
                continue;
            }
            for (int64_t a = 0; a < ty; a++)
                for (int64_t b = 0; b < tx; b++) {
                    tap[a * tx + b] = row[a] * p->in_stride[1] + column[b] * p->in_stride[2];
                    weight[a * tx + b] = row_weight[a] * column_weight[b];
                }
            j->kernels->pool_weighted(p->channels, ty * tx, tap, weight, in, out);
        }
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const resize_params *p = params;
    const job j = {p, ctx->kernels, args};
    if (p->channels == 0 || p->n[2] == 0) return;
    infold_parallel(ctx, p->n[0] * p->n[1], 1 + 16384 / (p->n[2] * p->channels) / (p->taps[0] * p->taps[1]), lines, &j);
}

const infold_op infold_op_resize = {
    .name = "resize",
    .params = "n[3] in_stride[3] out_stride[3] in_size[2] taps[2] channels",
    .args = "in row row_weight column column_weight out",
    .params_size = sizeof(resize_params),
    .check = check,
    .run = run,
};
