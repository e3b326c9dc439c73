/* Unary, binary and affine maps over strided operands, and the strided copy. The planner has merged the dimensions that can be
 * merged and put the one that is contiguous in the output last. */
#include <string.h>

#include "drivers/activation.h"
#include "drivers/check.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

enum { D = INFOLD_MAX_DIMS }; /* the last two are a plane, those before count planes as infold_pixel does */

typedef struct {
    int64_t shape[D], a_stride[D], b_stride[D], out_stride[D];
    int64_t op;
    double a, b;
    int64_t half; /* unary alone: whether the result is rounded to bf16 numbers */
} map_params; /* shared by the three maps; what each leaves unused is zero */

typedef struct {
    const map_params *p;
    const infold_kernels *kernels;
    const float *a, *b, *c;
    float *out;
    void (*plane)(const map_params *, const infold_kernels *, const float *, const float *, const float *, float *, int64_t rows);
    const infold_bf16 *bf16; /* in the place of `plane` */
} job;

enum { PIECE = 1024 }; /* numbers that are turned round before they become bf16 */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Rows that lie in order in `a` or, like an NCHW image on its way to NHWC, across it. */
static void half_plane(const job *j, const float *a, uint16_t *out, int64_t rows) {
    const map_params *p = j->p;
    const int64_t n = p->shape[D - 1], as = p->a_stride[D - 1], ar = p->a_stride[D - 2], or = p->out_stride[D - 2];
    float stage[PIECE];
    for (int64_t r = 0, m; r < rows; r += m) {
        const float *x = a + r * ar;
        m = as != 1 ? least(rows - r, PIECE / n) : rows;
        if (as != 1) j->kernels->transpose(n, m, x, as, stage, n), x = stage;
        j->bf16->act((infold_act)p->op, m, n, x, as != 1 ? n : ar, out + r * or, or, NULL, (float)p->a, (float)p->b);
    }
}

/* Work is counted in rows (the next-to-last dimension), so that one large plane is shared out too. */
static void rows_range(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const map_params *p = j->p;
    const int64_t rows = p->shape[D - 2];
    infold_pixel plane = pixel_at(p->shape, begin / rows);
    int64_t first = begin % rows;
    for (int64_t at = begin, count; at < end; at += count, first = 0, pixel_next(&plane, p->shape)) {
        count = least(rows - first, end - at);
        const int64_t ao = pixel_offset(&plane, p->a_stride) + first * p->a_stride[D - 2];
        const int64_t oo = pixel_offset(&plane, p->out_stride) + first * p->out_stride[D - 2];
        const int64_t bo = j->b ? pixel_offset(&plane, p->b_stride) + first * p->b_stride[D - 2] : 0; /* else not checked */
        if (j->bf16) half_plane(j, j->a + ao, (uint16_t *)(void *)j->out + oo, count);
        else j->plane(p, j->kernels, j->a + ao, j->b ? j->b + bo : NULL, j->c ? j->c + bo : NULL, j->out + oo, count);
    }
}

static void map(const job *j, const infold_ctx *ctx) {
    const map_params *p = j->p;
    if (p->shape[D - 1] == 0) return; /* planes may look at their first element */
    infold_parallel(ctx, pixel_count(p->shape) * p->shape[D - 2], 1 + 65536 / (p->shape[D - 1] + 1), rows_range, j);
}

static void unary_plane(const map_params *p, const infold_kernels *k, const float *a, const float *b, const float *c, float *out,
                        int64_t rows) {
    (void)b, (void)c;
    const int64_t n = p->shape[D - 1], as = p->a_stride[D - 1], os = p->out_stride[D - 1], ar = p->a_stride[D - 2], or = p->out_stride[D - 2];
    const bool even = as == 1 && os == 1;
    for (int64_t r = 0; r < (even ? 1 : rows); r++, a += ar, out += or)
        k->act((infold_act)p->op, even ? rows : n, even ? n : 1, a, even ? ar : as, out, even ? or : os, NULL, (float)p->a, (float)p->b);
}

static void copy_plane(const map_params *p, const infold_kernels *k, const float *a, const float *b, const float *c, float *out,
                       int64_t rows) {
    (void)b, (void)c;
    const int64_t n = p->shape[D - 1], as = p->a_stride[D - 1], ar = p->a_stride[D - 2], or = p->out_stride[D - 2];
    if (as == 1 && p->out_stride[D - 1] == 1) {
        for (int64_t r = 0; r < rows; r++) /* a band's window moves its last rows up, maybe by less than they are high */
            memmove(out + r * or, a + r * ar, (size_t)n * sizeof *out);
    } else if (ar == 1 && p->out_stride[D - 1] == 1) {
        k->transpose(n, rows, a, as, out, or);
    } else {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < n; i++) out[r * or + i * p->out_stride[D - 1]] = a[r * ar + i * as];
    }
}

static void binary_plane(const map_params *p, const infold_kernels *k, const float *a, const float *b, const float *c, float *out,
                         int64_t rows) {
    (void)c;
    k->binary((infold_binary)p->op, rows, p->shape[D - 1], a, p->a_stride + D - 2, b, p->b_stride + D - 2, out, p->out_stride + D - 2);
}

/* Channels that lie apart in x and together in out (an NCHW image on its way to NHWC): blocks are mapped, then turned round. */
static void affine_turned(const map_params *p, const infold_kernels *k, infold_activation act, const float *a, const float *b,
                          const float *c, float *out, int64_t rows) {
    enum { CHANNELS = 16, PIXELS = 64 };
    float stage[CHANNELS * PIXELS];
    const int64_t as = p->a_stride[D - 1], bs = p->b_stride[D - 1], or = p->out_stride[D - 2];
    for (int64_t r = 0, m; r < rows; r += m) {
        m = rows - r < PIXELS ? rows - r : PIXELS;
        for (int64_t i = 0, n; i < p->shape[D - 1]; i += n) {
            n = p->shape[D - 1] - i < CHANNELS ? p->shape[D - 1] - i : CHANNELS;
            k->affine(n, m, a + i * as + r, as, b + i * bs, c + i * bs, bs, 0, act.lo, act.hi, stage, PIXELS);
            if (act.late) k->act((infold_act)p->op, n, m, stage, PIXELS, stage, PIXELS, NULL, (float)p->a, (float)p->b);
            k->transpose(n, m, stage, PIXELS, out + r * or + i, or);
        }
    }
}

static void affine_plane(const map_params *p, const infold_kernels *k, const float *a, const float *b, const float *c, float *out,
                         int64_t rows) {
    const int64_t n = p->shape[D - 1], or = p->out_stride[D - 2];
    const infold_activation act = activation_of(p->op, p->a, p->b);
    if (p->a_stride[D - 1] != 1) {
        affine_turned(p, k, act, a, b, c, out, rows);
        return;
    }
    k->affine(rows, n, a, p->a_stride[D - 2], b, c, p->b_stride[D - 2], p->b_stride[D - 1], act.lo, act.hi, out, or);
    if (act.late) k->act((infold_act)p->op, rows, n, out, or, out, or, NULL, (float)p->a, (float)p->b);
}

static bool fits(const map_params *p, const int64_t *stride, const infold_extent *e, int64_t item) {
    return span_fits(span_repeat(span_of_run(1), D, p->shape, stride), e, item);
}

static infold_status check_unary(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const map_params *p = params;
    CHECK(p->op >= 0 && p->op < INFOLD_ACT_COUNT && p->op != INFOLD_PRELU, INFOLD_EPARAM);
    CHECK(p->half == 0 || p->half == 1, INFOLD_EPARAM);
    CHECK(!p->half || (p->out_stride[D - 1] == 1 && (p->a_stride[D - 1] == 1 || (p->a_stride[D - 2] == 1 && p->shape[D - 1] <= PIECE))),
          INFOLD_EPARAM);
    return fits(p, p->a_stride, &e[0], 4) && fits(p, p->out_stride, &e[1], 4 - 2 * p->half) ? INFOLD_OK : INFOLD_EBOUNDS;
}

static infold_status check_binary(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const map_params *p = params;
    CHECK(p->op >= 0 && p->op < INFOLD_BINARY_COUNT, INFOLD_EPARAM);
    return fits(p, p->a_stride, &e[0], 4) && fits(p, p->b_stride, &e[1], 4) && fits(p, p->out_stride, &e[2], 4) ? INFOLD_OK : INFOLD_EBOUNDS;
}

static infold_status check_affine(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const map_params *p = params;
    CHECK(p->op >= 0 && p->op < INFOLD_ACT_COUNT && p->op != INFOLD_PRELU, INFOLD_EPARAM);
    CHECK(p->out_stride[D - 1] == 1 && p->b_stride[D - 1] >= 0 && p->b_stride[D - 1] <= 1, INFOLD_EPARAM);
    CHECK(p->a_stride[D - 1] == 1 || (p->a_stride[D - 2] == 1 && p->b_stride[D - 2] == 0), INFOLD_EPARAM);
    return fits(p, p->a_stride, &e[0], 4) && fits(p, p->b_stride, &e[1], 4) && fits(p, p->b_stride, &e[2], 4) &&
                   fits(p, p->out_stride, &e[3], 4)
               ? INFOLD_OK
               : INFOLD_EBOUNDS;
}

static void run_unary(const void *params, void *const *args, const infold_ctx *ctx) {
    const map_params *p = params;
    const job j = {p, ctx->kernels, args[0], NULL, NULL, args[1], p->op == INFOLD_IDENTITY ? copy_plane : unary_plane,
                   p->half ? ctx->bf16 : NULL};
    map(&j, ctx);
}

static void run_binary(const void *params, void *const *args, const infold_ctx *ctx) {
    const job j = {params, ctx->kernels, args[0], args[1], NULL, args[2], binary_plane, NULL};
    map(&j, ctx);
}

static void run_affine(const void *params, void *const *args, const infold_ctx *ctx) {
    const job j = {params, ctx->kernels, args[0], args[1], args[2], args[3], affine_plane, NULL};
    map(&j, ctx);
}

#define MAP_PARAMS "shape[6] a_stride[6] b_stride[6] out_stride[6] op a:f b:f half"

const infold_op infold_op_unary = {.name = "unary", .params = MAP_PARAMS, .args = "in out",
                                   .params_size = sizeof(map_params), .check = check_unary, .run = run_unary};
const infold_op infold_op_binary = {.name = "binary", .params = MAP_PARAMS, .args = "a b out",
                                    .params_size = sizeof(map_params), .check = check_binary, .run = run_binary};
const infold_op infold_op_affine = {.name = "affine", .params = MAP_PARAMS, .args = "x scale shift out",
                                    .params_size = sizeof(map_params), .check = check_affine, .run = run_affine};
