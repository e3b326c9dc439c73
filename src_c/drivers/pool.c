/* Max and average pooling, 1-D to 3-D. Windows are clipped to the image here, so kernels see only real pixels. */
#include "drivers/check.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

enum { MAX_TAPS = 4096 };
static const int64_t LIMIT = INT64_C(1) << 60; /* sums of a few lengths below it cannot overflow */

typedef struct {
    int64_t n[4], in_stride[4], out_stride[4]; /* output pixels; in_stride per input pixel (the window moves by `stride`) */
    int64_t in_size[3], kernel[3], stride[3], pad[3], pad_end[3], dilation[3];
    int64_t channels;
    int64_t average, include_pad; /* include_pad: the divisor counts padding, but not what ceil_mode adds beyond it */
    int64_t half; /* whether both images hold bf16 numbers, not float32 */
} pool_params;

enum { IN, OUT };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const pool_params *p = params;
    CHECK(p->channels >= 1, INFOLD_EPARAM); /* without elements nothing bounds the strides */
    int64_t taps = 1;
    CHECK(p->half == 0 || p->half == 1, INFOLD_EPARAM);
    for (int i = 0; i < 3; i++) {
        CHECK(p->kernel[i] >= 1 && p->kernel[i] <= MAX_TAPS && p->stride[i] >= 1 && p->dilation[i] >= 1, INFOLD_EPARAM);
        CHECK(p->pad[i] >= 0 && p->pad_end[i] >= 0 && p->in_size[i] >= 0, INFOLD_EPARAM);
        CHECK(p->pad[i] < LIMIT && p->pad_end[i] < LIMIT && p->in_size[i] < LIMIT, INFOLD_EPARAM);
        int64_t last;
        CHECK(!__builtin_mul_overflow(p->n[i + 1], p->stride[i], &last) && last < LIMIT, INFOLD_EPARAM);
        CHECK(!__builtin_mul_overflow(p->kernel[i], p->dilation[i], &last) && last < LIMIT, INFOLD_EPARAM);
        taps *= p->kernel[i];
        CHECK(taps <= MAX_TAPS, INFOLD_EPARAM);
    }
    const int64_t in_shape[4] = {p->n[0], p->in_size[0], p->in_size[1], p->in_size[2]};
    const infold_span run = span_of_run(p->channels);
    CHECK(span_fits(span_repeat(run, 4, in_shape, p->in_stride), &e[IN], 4 - 2 * p->half), INFOLD_EBOUNDS);
    const infold_span out = span_repeat(run, 4, p->n, p->out_stride);
    return span_fits(out, &e[OUT], 4 - 2 * p->half) && work_fits(out, taps) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    const pool_params *p;
    void (*max)(int64_t channels, int64_t taps, const int64_t *tap, int64_t pixels, const void *in, int64_t in_step, void *out,
                int64_t out_step);
    void (*sum)(int64_t channels, int64_t taps, const int64_t *tap, int64_t pixels, const void *in, int64_t in_step, void *out,
                int64_t out_step, float scale);
    void *const *args;
} job;

/* The window of one output pixel, clipped to the image: first pixel and live taps per dimension, and the divisor of a mean. */
typedef struct {
    int64_t first[3], count[3], divisor;
    bool whole;
} window;

/* How many of the taps 0, d, 2d, ... lie below `room`. */
static int64_t taps_within(int64_t room, int64_t d, int64_t taps) {
    const int64_t fit = room > 0 ? (room + d - 1) / d : 0;
    return fit < taps ? fit : taps;
}

static window clip(const pool_params *p, const infold_pixel *x) {
    window w = {.divisor = 1, .whole = true};
    for (int i = 0; i < 3; i++) {
        const int64_t d = p->dilation[i], start = x->index[i + 1] * p->stride[i] - p->pad[i];
        if (start >= 0 && start + (p->kernel[i] - 1) * d < p->in_size[i]) {
            w.first[i] = start;
            w.count[i] = p->kernel[i];
            w.divisor *= p->kernel[i];
            continue;
        }
        const int64_t skip = start < 0 ? (-start + d - 1) / d : 0;
        const int64_t live = taps_within(p->in_size[i] - start, d, p->kernel[i]);
        const int64_t padded = taps_within(p->in_size[i] + p->pad_end[i] - start, d, p->kernel[i]);
        w.first[i] = start + skip * d;
        w.count[i] = live > skip ? live - skip : 0;
        w.divisor *= p->include_pad ? padded : w.count[i];
        w.whole = false;
    }
    return w;
}

static int64_t list_taps(const pool_params *p, const int64_t count[3], int64_t *tap) {
    int64_t taps = 0;
    for (int64_t a = 0; a < count[0]; a++)
        for (int64_t b = 0; b < count[1]; b++)
            for (int64_t c = 0; c < count[2]; c++)
                tap[taps++] = a * p->dilation[0] * p->in_stride[1] + b * p->dilation[1] * p->in_stride[2] +
                              c * p->dilation[2] * p->in_stride[3];
    return taps;
}

static void pixels(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const pool_params *p = j->p;
    int64_t whole[MAX_TAPS], part[MAX_TAPS], whole_taps = 0; /* most windows are whole: their taps are listed once */
    const int64_t reach = (p->kernel[2] - 1) * p->dilation[2];
    infold_pixel x = pixel_at(p->n, begin);
    for (int64_t at = begin, run; at < end; at += run) {
        const window w = clip(p, &x);
        if (w.whole && !whole_taps) whole_taps = list_taps(p, w.count, whole);
        const int64_t taps = w.whole ? whole_taps : list_taps(p, w.count, part), *tap = w.whole ? whole : part;
        int64_t first = 0; /* what lies in an empty image may have any stride */
        if (taps)
            first = x.index[0] * p->in_stride[0] + w.first[0] * p->in_stride[1] + w.first[1] * p->in_stride[2] + w.first[2] * p->in_stride[3];
        const void *in = (const char *)j->args[IN] + first * (4 - 2 * p->half);
        void *out = (char *)j->args[OUT] + pixel_offset(&x, p->out_stride) * (4 - 2 * p->half);
        /* the next windows of the row that are whole, too */
        const int64_t whole_run = w.whole ? (p->in_size[2] - 1 - w.first[2] - reach) / p->stride[2] + 1 : 1;
        run = pixel_run(&x, p->n, whole_run < end - at ? whole_run : end - at);
        const int64_t in_step = run > 1 ? p->stride[2] * p->in_stride[3] : 0, out_step = p->out_stride[3];
        if (p->average)
            j->sum(p->channels, taps, tap, run, in, in_step, out, out_step, w.divisor > 0 ? 1.0f / (float)w.divisor : 0.0f);
        else
            j->max(p->channels, taps, tap, run, in, in_step, out, out_step);
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const pool_params *p = params;
    const job j = {p, p->half ? ctx->bf16->pool_max : ctx->kernels->pool_max,
                   p->half ? ctx->bf16->pool_sum : ctx->kernels->pool_sum, args};
    const int64_t work = p->kernel[0] * p->kernel[1] * p->kernel[2] * p->channels;
    infold_parallel(ctx, pixel_count(p->n), 1 + 262144 / (work + 1), pixels, &j);
}

const infold_op infold_op_pool = {
    .name = "pool",
    .params = "n[4] in_stride[4] out_stride[4] in_size[3] kernel[3] stride[3] pad[3] pad_end[3] dilation[3] channels average "
              "include_pad half",
    .args = "in out",
    .params_size = sizeof(pool_params),
    .check = check,
    .run = run,
};
