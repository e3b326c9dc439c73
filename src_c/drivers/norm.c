/* y = act((x - mean) / sqrt(variance + epsilon) * gamma + beta), the statistics taken from the data.
 *
 * Every step of `n` is normalised by itself; its statistics run over all `pixels` and over `group` neighbouring channels:
 *     LayerNorm      n = rows, one pixel, group = channels = the row
 *     InstanceNorm   n = images, pixels = the image, group = 1
 *     GroupNorm      n = images, pixels = the image, group = channels / groups
 *     BatchNorm with batch statistics   n = 1, pixels = all pixels of all images, group = 1
 * RMS leaves the mean out. gamma and beta are by channel. */
#include <math.h>

#include "drivers/check.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

typedef struct {
    int64_t n[4], in_stride[4], out_stride[4];
    int64_t pixels[4], in_pixel[4], out_pixel[4];
    int64_t channels, group, rms;
    int64_t act;
    double epsilon, a, b;
} norm_params;

enum { IN, GAMMA, BETA, OUT, COLUMNS = 256 };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const norm_params *p = params;
    CHECK(p->channels >= 1 && p->group >= 1 && p->channels % p->group == 0, INFOLD_EPARAM);
    CHECK(p->act >= 0 && p->act < INFOLD_ACT_COUNT && p->act != INFOLD_PRELU, INFOLD_EPARAM);
    const infold_span run = span_of_run(p->channels);
    const infold_span in = span_repeat(span_repeat(run, 4, p->pixels, p->in_pixel), 4, p->n, p->in_stride);
    const infold_span out = span_repeat(span_repeat(run, 4, p->pixels, p->out_pixel), 4, p->n, p->out_stride);
    CHECK(span_fits(in, &e[IN], 4) && span_fits(out, &e[OUT], 4), INFOLD_EBOUNDS);
    if (arg_given(&e[GAMMA])) CHECK(span_fits(run, &e[GAMMA], 4), INFOLD_EBOUNDS);
    if (arg_given(&e[BETA])) CHECK(span_fits(run, &e[BETA], 4), INFOLD_EBOUNDS);
    return INFOLD_OK;
}

typedef struct {
    const norm_params *p;
    const infold_kernels *kernels;
    const float *in, *gamma, *beta;
    float *out;
    int64_t width, chunks; /* channels of a work item, and items per step of n */
} job;

typedef struct {
    float mean, mean_low, scale; /* mean + mean_low is the mean in twice the precision */
} statistics;

static statistics settle(const norm_params *p, double mean, double m2, double count) {
    double variance = m2 / count;
    if (p->rms) {
        variance += mean * mean;
        mean = 0.0;
    }
    const float high = (float)mean;
    const float low = isfinite(high) ? (float)(mean - (double)high) : 0.0f;
    return (statistics){high, low, (float)(1.0 / sqrt(variance + p->epsilon))};
}

static void activate(const job *j, int64_t n, float *out) {
    const norm_params *p = j->p;
    if (p->act != INFOLD_IDENTITY) j->kernels->act((infold_act)p->act, n, out, out, NULL, (float)p->a, (float)p->b);
}

/* Statistics of each channel side by side, joined by group. */
static void columns(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const norm_params *p = j->p;
    const int64_t count = pixel_count(p->pixels);
    float mean[COLUMNS], low[COLUMNS], m2[COLUMNS], scale[COLUMNS], shift[COLUMNS];
    for (int64_t at = begin; at < end; at++) {
        const infold_pixel item = pixel_at(p->n, at / j->chunks);
        const int64_t first = at % j->chunks * j->width, left = p->channels - first, n = left < j->width ? left : j->width;
        const float *in = j->in + pixel_offset(&item, p->in_stride) + first;
        float *out = j->out + pixel_offset(&item, p->out_stride) + first;
        infold_pixel x = {{0}};
        for (int64_t done = 0; done < count;) {
            int64_t tap[INFOLD_REDUCE_BLOCK], taps = 0;
            for (; taps < INFOLD_REDUCE_BLOCK && done + taps < count; pixel_next(&x, p->pixels))
                tap[taps++] = pixel_offset(&x, p->in_pixel);
            j->kernels->moments_columns(n, taps, tap, in, done, mean, low, m2);
            done += taps;
        }
        for (int64_t g = 0; g < n; g += p->group) {
            double average = 0.0, squares = 0.0;
            for (int64_t c = g; c < g + p->group; c++) average += ((double)mean[c] + (double)low[c]) / (double)p->group;
            for (int64_t c = g; c < g + p->group; c++) {
                const double d = (double)mean[c] + (double)low[c] - average;
                squares += (double)m2[c] + d * d * (double)count;
            }
            const statistics s = settle(p, average, squares, (double)count * (double)p->group);
            for (int64_t c = g; c < g + p->group; c++) {
                mean[c] = s.mean;
                scale[c] = j->gamma ? s.scale * j->gamma[first + c] : s.scale;
                shift[c] = (j->beta ? j->beta[first + c] : 0.0f) - s.mean_low * scale[c];
            }
        }
        x = (infold_pixel){{0}};
        for (int64_t i = 0; i < count; i++, pixel_next(&x, p->pixels)) {
            float *pixel = out + pixel_offset(&x, p->out_pixel);
            j->kernels->normalize_columns(n, in + pixel_offset(&x, p->in_pixel), mean, scale, shift, pixel);
            activate(j, n, pixel);
        }
    }
}

/* One set of statistics for a long contiguous run under every pixel. */
static void runs(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const norm_params *p = j->p;
    const int64_t count = pixel_count(p->pixels);
    for (int64_t at = begin; at < end; at++) {
        const infold_pixel item = pixel_at(p->n, at / j->chunks);
        const int64_t first = at % j->chunks * p->group;
        const float *in = j->in + pixel_offset(&item, p->in_stride) + first;
        float *out = j->out + pixel_offset(&item, p->out_stride) + first;
        double mean = 0.0, m2 = 0.0;
        infold_pixel x = {{0}};
        for (int64_t i = 0; i < count; i++, pixel_next(&x, p->pixels))
            j->kernels->moments_run(p->group, in + pixel_offset(&x, p->in_pixel), i * p->group, &mean, &m2);
        const statistics s = settle(p, mean, m2, (double)count * (double)p->group);
        x = (infold_pixel){{0}};
        for (int64_t i = 0; i < count; i++, pixel_next(&x, p->pixels)) {
            float *pixel = out + pixel_offset(&x, p->out_pixel);
            j->kernels->normalize_run(p->group, in + pixel_offset(&x, p->in_pixel), s.mean, s.mean_low, s.scale,
                                      j->gamma ? j->gamma + first : NULL, j->beta ? j->beta + first : NULL, pixel);
            activate(j, p->group, pixel);
        }
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const norm_params *p = params;
    const int64_t count = pixel_count(p->pixels), items = pixel_count(p->n);
    job j = {p, ctx->kernels, args[IN], args[GAMMA], args[BETA], args[OUT], p->group, p->channels / p->group};
    if (count == 0) return;
    if (count == 1 || p->group > COLUMNS) {
        infold_parallel(ctx, items * j.chunks, 1 + 16384 / (count * p->group), runs, &j);
        return;
    }
    const int64_t room = items * p->channels >= COLUMNS * ctx->threads ? COLUMNS : COLUMNS / 4;
    j.width = p->group > room ? p->group : room / p->group * p->group;
    j.chunks = (p->channels + j.width - 1) / j.width;
    infold_parallel(ctx, items * j.chunks, 1 + 16384 / (count * j.width), columns, &j);
}

const infold_op infold_op_norm = {
    .name = "norm",
    .params = "n[4] in_stride[4] out_stride[4] pixels[4] in_pixel[4] out_pixel[4] channels group rms act "
              "epsilon:f a:f b:f",
    .args = "in gamma? beta? out",
    .params_size = sizeof(norm_params),
    .check = check,
    .run = run,
};
