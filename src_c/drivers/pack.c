/* Packing a matrix B[k][columns] into panels of `width` columns, [panel][k][width], zero-padded: the layout the micro-kernel reads.
 * Run once by the planner for weights, and as a step for products of two computed matrices. */
#include <string.h>

#include "drivers/pack.h"

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const pack_params *p = params;
    const infold_status status = pack_check(p, e);
    CHECK(status == INFOLD_OK, status);
    int64_t total = (p->columns + kernels->lanes - 1) / kernels->lanes * kernels->lanes;
    for (int i = 0; i < 3; i++) CHECK(!__builtin_mul_overflow(total, p->k[i], &total), INFOLD_EPARAM);
    return span_fits(span_repeat(span_of_run(total), 1, &p->groups, &p->out_group), &e[OUT], 4) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    const pack_params *p;
    const infold_kernels *kernels;
    void *const *args;
} job;

static void panels(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const pack_params *p = j->p;
    const int64_t nr = j->kernels->nr, lanes = j->kernels->lanes, rows = p->k[0] * p->k[1] * p->k[2];
    const int64_t per_group = (p->columns + nr - 1) / nr;
    for (int64_t at = begin; at < end; at++) {
        const int64_t group = at / per_group, q = at % per_group;
        const int64_t live = p->columns - q * nr < nr ? p->columns - q * nr : nr, width = live > lanes ? nr : lanes;
        const float *in = (const float *)j->args[IN] + group * p->in_group + q * nr * p->column_stride;
        float *out = (float *)j->args[OUT] + group * p->out_group + q * nr * rows;
        if (live < width) memset(out, 0, (size_t)(rows * width) * sizeof *out);
        for (int64_t a = 0; a < p->k[0]; a++)
            for (int64_t b = 0; b < p->k[1]; b++, out += p->k[2] * width) {
                const float *src = in + a * p->k_stride[0] + b * p->k_stride[1];
                if (p->column_stride == 1)
                    for (int64_t c = 0; c < p->k[2]; c++)
                        memcpy(out + c * width, src + c * p->k_stride[2], (size_t)live * sizeof *out);
                else if (p->k_stride[2] == 1)
                    j->kernels->transpose(live, p->k[2], src, p->column_stride, out, width);
                else
                    for (int64_t c = 0; c < p->k[2]; c++)
                        for (int64_t i = 0; i < live; i++)
                            out[c * width + i] = src[c * p->k_stride[2] + i * p->column_stride];
            }
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const pack_params *p = params;
    const job j = {p, ctx->kernels, args};
    const int64_t nr = ctx->kernels->nr;
    infold_parallel(ctx, (p->columns + nr - 1) / nr * p->groups, 1 + 65536 / (p->k[0] * p->k[1] * p->k[2] * nr + 1), panels, &j);
}

const infold_op infold_op_pack = {
    .name = "pack",
    .params = PACK_PARAMS,
    .args = "in out",
    .params_size = sizeof(pack_params),
    .check = check,
    .run = run,
};
