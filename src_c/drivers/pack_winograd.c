/* Filters of 3x3 convolutions, [column][k][3][3], transformed for Winograd's algorithm (winograd.c) and packed: for each of the
 * (side + 2)^2 positions panels as those of pack.c. Computed in double precision and rounded once. */
#include <string.h>

#include "drivers/pack.h"

enum { AREA = 9, MAX_POINTS = 6 };

typedef struct {
    int64_t side, k, columns;
    int64_t out_group;        /* from position to position */
    double g[3 * MAX_POINTS]; /* (side + 2) x 3: values of a filter's polynomial at the points */
} pack_winograd_params;

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const pack_winograd_params *p = params;
    CHECK((p->side == 2 || p->side == 4) && p->k >= 0 && p->columns >= 0 && p->columns <= INT64_MAX / 2, INFOLD_EPARAM);
    const int64_t positions = (p->side + 2) * (p->side + 2), area = AREA;
    int64_t step, panels = (p->columns + kernels->lanes - 1) / kernels->lanes * kernels->lanes;
    CHECK(!__builtin_mul_overflow(p->k, area, &step) && !__builtin_mul_overflow(panels, p->k, &panels), INFOLD_EPARAM);
    CHECK(span_fits(span_repeat(span_of_run(step), 1, &p->columns, &step), &e[IN], 4), INFOLD_EBOUNDS);
    return span_fits(span_repeat(span_of_run(panels), 1, &positions, &p->out_group), &e[OUT], 4) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    const pack_winograd_params *p;
    const infold_kernels *kernels;
    void *const *args;
} job;

enum { CHANNELS = 8, BLOCK = 4 }; /* that are transposed at once; filters whose transform stays in registers */

/* G w G^T of filters that lie side by side, w[tap][width], to out[position][width]. */
static void transform(const pack_winograd_params *p, int64_t width, const float *w, float *out) {
    const int64_t n = p->side + 2;
    for (int64_t at = 0; at < width; at += BLOCK, w += BLOCK, out += BLOCK) {
        double half[MAX_POINTS][3][BLOCK];
        for (int64_t i = 0; i < n; i++)
            for (int b = 0; b < 3; b++)
                for (int x = 0; x < BLOCK; x++)
                    half[i][b][x] = p->g[3 * i] * (double)w[b * width + x] + p->g[3 * i + 1] * (double)w[(3 + b) * width + x] +
                                    p->g[3 * i + 2] * (double)w[(6 + b) * width + x];
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                for (int x = 0; x < BLOCK; x++)
                    out[(i * n + j) * p->out_group + x] =
                        (float)(p->g[3 * j] * half[i][0][x] + p->g[3 * j + 1] * half[i][1][x] + p->g[3 * j + 2] * half[i][2][x]);
    }
}

static void panels(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const pack_winograd_params *p = j->p;
    const int64_t nr = j->kernels->nr, lanes = j->kernels->lanes;
    float taps[AREA * CHANNELS * 2 * INFOLD_MAX_LANES];
    for (int64_t q = begin; q < end; q++) {
        const int64_t live = p->columns - q * nr < nr ? p->columns - q * nr : nr, width = live > lanes ? nr : lanes;
        const float *in = (const float *)j->args[IN] + q * nr * p->k * AREA;
        float *out = (float *)j->args[OUT] + q * nr * p->k;
        if (live < width) memset(taps, 0, sizeof taps);
        for (int64_t c0 = 0; c0 < p->k; c0 += CHANNELS) {
            const int64_t channels = p->k - c0 < CHANNELS ? p->k - c0 : CHANNELS;
            j->kernels->transpose(live, channels * AREA, in + c0 * AREA, p->k * AREA, taps, width);
            for (int64_t c = 0; c < channels; c++) transform(p, width, taps + c * AREA * width, out + (c0 + c) * width);
        }
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const pack_winograd_params *p = params;
    const job j = {p, ctx->kernels, args};
    const int64_t nr = ctx->kernels->nr;
    infold_parallel(ctx, (p->columns + nr - 1) / nr, 1 + 4096 / (p->k * nr + 1), panels, &j);
}

const infold_op infold_op_pack_winograd = {
    .name = "pack_winograd",
    .params = "side k columns out_group g[18]:f",
    .args = "in out",
    .params_size = sizeof(pack_winograd_params),
    .check = check,
    .run = run,
};
