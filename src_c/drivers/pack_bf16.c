/* Packing a matrix B[k][columns] for products in bf16: panels of INFOLD_BF16_COLUMNS columns, each [term][k / 2][column][2], as the
 * dot product of pairs reads it; k and the columns are zero-padded. Every float becomes the sum of `terms` bf16 numbers. */
#include <string.h>

#include "drivers/pack.h"

typedef struct {
    pack_params pack;
    int64_t terms;
} pack_bf16_params;

static int64_t depth_of(const int64_t k[3]) {
    return (k[0] * k[1] * k[2] + INFOLD_BF16_DEPTH - 1) / INFOLD_BF16_DEPTH * INFOLD_BF16_DEPTH;
}

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const pack_bf16_params *p = params;
    const infold_status status = pack_check(&p->pack, e);
    CHECK(status == INFOLD_OK, status);
    CHECK(p->terms >= 1 && p->terms <= INFOLD_BF16_TERMS, INFOLD_EPARAM);
    int64_t rows = 1, total = (p->pack.columns + INFOLD_BF16_COLUMNS - 1) / INFOLD_BF16_COLUMNS * INFOLD_BF16_COLUMNS * p->terms;
    for (int i = 0; i < 3; i++) CHECK(p->pack.k[i] >= 0 && !__builtin_mul_overflow(rows, p->pack.k[i], &rows), INFOLD_EPARAM);
    CHECK(rows <= INT64_MAX / 2 && !__builtin_mul_overflow(total, depth_of(p->pack.k), &total), INFOLD_EPARAM);
    return span_fits(span_repeat(span_of_run(total), 1, &p->pack.groups, &p->pack.out_group), &e[OUT], 2) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    const pack_bf16_params *p;
    const infold_bf16 *kernel;
    void *const *args;
} job;

static void panels(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const pack_params *p = &j->p->pack;
    enum { NR = INFOLD_BF16_COLUMNS };
    const int64_t per_group = (p->columns + NR - 1) / NR, plane = depth_of(p->k) * NR, panel = j->p->terms * plane;
    for (int64_t at = begin; at < end; at++) {
        const int64_t group = at / per_group, q = at % per_group, live = p->columns - q * NR < NR ? p->columns - q * NR : NR;
        const float *in = (const float *)j->args[IN] + group * p->in_group + q * NR * p->column_stride;
        uint16_t *out = (uint16_t *)j->args[OUT] + group * p->out_group + q * panel;
        memset(out, 0, (size_t)panel * sizeof *out);
        int64_t row = 0;
        for (int64_t a = 0; a < p->k[0]; a++)
            for (int64_t b = 0; b < p->k[1]; b++)
                for (int64_t c = 0; c < p->k[2]; c++, row++) {
                    const float *src = in + a * p->k_stride[0] + b * p->k_stride[1] + c * p->k_stride[2];
                    float x[NR];
                    uint16_t parts[INFOLD_BF16_TERMS * NR];
                    for (int64_t i = 0; i < live; i++) x[i] = src[i * p->column_stride];
                    j->kernel->split(live, x, j->p->terms, parts, NR);
                    for (int64_t t = 0; t < j->p->terms; t++)
                        for (int64_t i = 0; i < live; i++) out[t * plane + row / 2 * 2 * NR + 2 * i + row % 2] = parts[t * NR + i];
                }
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const pack_bf16_params *p = params;
    const job j = {p, ctx->bf16, args};
    const int64_t count = (p->pack.columns + INFOLD_BF16_COLUMNS - 1) / INFOLD_BF16_COLUMNS * p->pack.groups;
    infold_parallel(ctx, count, 1 + 65536 / (depth_of(p->pack.k) * INFOLD_BF16_COLUMNS + 1), panels, &j);
}

const infold_op infold_op_pack_bf16 = {
    .name = "pack_bf16",
    .params = PACK_PARAMS " terms",
    .args = "in out",
    .params_size = sizeof(pack_bf16_params),
    .check = check,
    .run = run,
};
