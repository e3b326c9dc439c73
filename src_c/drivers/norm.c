/* Every normalisation whose statistics come from the data: Layer, RMS, Instance, Group and Batch, Lp, EvoNorm.
 *
 * Every step of `n` is normalised by itself; its statistics run over all `pixels` and over `group` neighbouring channels:
 *     LayerNorm      n = rows, one pixel, group = channels = the row
 *     InstanceNorm   n = images, pixels = the image, group = 1 (channels last); n = images and channels, group = the image (first)
 *     GroupNorm      n = images, pixels = the image, group = channels / groups
 *     BatchNorm with batch statistics   n = 1, pixels = all pixels of all images, group = 1
 * With S the sum of squared deviations from the mean (power 0), of |x| (1) or of x^2 (2), and s = S / divisor,
 *     d = sqrt(s + epsilon) + offset, or s + offset for |x|;   y = (x - mean) / d, without the mean if power > 0
 *     with v:            y = x * sigmoid(v x) / d              (EvoNorm-S0)
 *     with v and floor:  y = x / max(floor, v x + d)           (EvoNorm-B0)
 *     out = act(y * gamma + beta);   where d = 0 for power > 0, all elements are 0 and so is y
 * mean and spread give the statistics away: the spread is s, or 1 / d if `inverse`. gamma, beta, v and floor have one layout.
 *
 * Where what belongs together is `near` (the second-level cache), one thread reads it twice; what does not is cut into blocks for
 * all threads. The cuts depend on shapes alone: results are the same for any number of threads. */
#include "drivers/norm.h"

#include "drivers/check.h"
#include "drivers/parallel.h"

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const norm_params *p = params;
    CHECK(p->channels >= 1 && p->group >= 1 && p->channels % p->group == 0, INFOLD_EPARAM);
    CHECK(p->act >= 0 && p->act < INFOLD_ACT_COUNT && p->act != INFOLD_PRELU, INFOLD_EPARAM);
    CHECK(p->power >= 0 && p->power <= 2 && p->divisor > 0.0, INFOLD_EPARAM);
    CHECK(p->affine_channel == 0 || p->affine_channel == 1, INFOLD_EPARAM);
    CHECK(p->near >= 0 && p->far >= 0, INFOLD_EPARAM);
    CHECK(arg_given(&e[V]) || !arg_given(&e[FLOOR]), INFOLD_EMISSING);
    const infold_span one = span_of_run(1), run = span_of_run(p->channels);
    const infold_span in = span_repeat(span_repeat(run, 4, p->pixels, p->in_pixel), 4, p->n, p->in_stride);
    const infold_span out = span_repeat(span_repeat(run, 4, p->pixels, p->out_pixel), 4, p->n, p->out_stride);
    const infold_span channel = span_repeat(one, 1, &p->channels, &p->affine_channel);
    const infold_span affine = span_repeat(span_repeat(channel, 4, p->pixels, p->affine_pixel), 4, p->n, p->affine_stride);
    const int64_t groups = p->channels / p->group;
    const infold_span stat = span_repeat(span_repeat(one, 1, &groups, &p->stat_group), 4, p->n, p->stat_stride);
    CHECK(!out.broken && !affine.broken && !stat.broken, INFOLD_EBOUNDS); /* offsets are computed even of what is not given */
    CHECK(span_fits(in, &e[IN], 4), INFOLD_EBOUNDS);
    if (arg_given(&e[OUT])) CHECK(span_fits(out, &e[OUT], 4), INFOLD_EBOUNDS);
    for (int i = GAMMA; i <= FLOOR; i++)
        if (arg_given(&e[i])) CHECK(span_fits(affine, &e[i], 4), INFOLD_EBOUNDS);
    for (int i = MEAN; i <= SPREAD; i++)
        if (arg_given(&e[i])) CHECK(span_fits(stat, &e[i], 4), INFOLD_EBOUNDS);
    return INFOLD_OK;
}

static infold_norm_by numbers(const job *j, const tables *t) {
    const float *v = t->affine[V - GAMMA], *floor = t->affine[FLOOR - GAMMA];
    return (infold_norm_by){.center = t->center, .scale = t->scale, .shift = t->shift, .v = v, .floor = floor,
                            .lo = j->act.lo, .hi = j->act.hi};
}

static void late(const job *j, int64_t n, float *out) {
    if (j->act.late) j->kernels->act((infold_act)j->p.act, 1, n, out, 0, out, 0, NULL, (float)j->p.a, (float)j->p.b);
}

static void apply_columns(const job *j, const item *it, const tables *t, int64_t begin, int64_t end) {
    const norm_params *p = &j->p;
    infold_norm_by by = numbers(j, t);
    infold_pixel x = pixel_at(p->pixels, begin);
    for (int64_t at = begin; at < end;) {
        int64_t in[INFOLD_REDUCE_BLOCK], out[INFOLD_REDUCE_BLOCK], taps = 0;
        for (; taps < INFOLD_REDUCE_BLOCK && at < end; at++, taps++, pixel_next(&x, p->pixels)) {
            in[taps] = pixel_offset(&x, p->in_pixel);
            out[taps] = pixel_offset(&x, p->out_pixel);
        }
        by.ahead = it->ahead ? it->ahead : taps > 1 ? (in[1] - in[0]) * taps : 0;
        j->kernels->normalize(j->how.form, j->stream, it->width, taps, in, out, it->in, &by, it->out);
        for (int64_t i = 0; i < taps && j->act.late; i++) late(j, it->width, it->out + out[i]);
    }
}

/* Rows of n elements under `in`, the next ones `ahead`; gamma and its like by element, or one for each row. */
static void apply_rows(const job *j, const batch *b, const tables *t, int64_t n, int64_t ahead, const float *in, float *out) {
    infold_norm_by by = numbers(j, t);
    by.row = true, by.ahead = ahead;
    if (j->p.affine_channel) {
        const int64_t at = b->affine[0];
        by.each = true;
        if (j->affine[GAMMA]) by.gamma = j->affine[GAMMA] + at;
        if (j->affine[BETA]) by.beta = j->affine[BETA] + at;
        if (j->affine[V]) by.v = j->affine[V] + at;
        if (j->affine[FLOOR]) by.floor = j->affine[FLOOR] + at;
    }
    j->kernels->normalize(j->how.form, j->stream, n, b->rows, b->in, b->out, in, &by, out);
    for (int64_t r = 0; r < b->rows && j->act.late; r++) late(j, n, out + b->out[r]);
}

/* One set of sums over many rows; the first and the last may be cut. */
static void apply_run(const job *j, const item *it, double mean, double sum, int64_t begin, int64_t end) {
    const norm_params *p = &j->p;
    batch b = {0};
    tables t;
    infold_pixel x = pixel_at(p->pixels, begin / p->group);
    for (int64_t at = begin, skip = begin % p->group; at < end; skip = 0) {
        const int64_t rest = end - at, n = p->group - skip < rest ? p->group - skip : rest;
        const int64_t whole = p->affine_channel || n < p->group ? 1 : rest / n, rows = whole < ROWS ? whole : ROWS;
        for (b.rows = 0; b.rows < rows; b.rows++, at += n, pixel_next(&x, p->pixels)) {
            b.in[b.rows] = pixel_offset(&x, p->in_pixel) + skip;
            b.out[b.rows] = pixel_offset(&x, p->out_pixel) + skip;
            b.affine[b.rows] = it->affine + pixel_offset(&x, p->affine_pixel) + skip * p->affine_channel;
            b.mean[b.rows] = mean, b.sum[b.rows] = sum;
        }
        settle(j, rows, b.affine, b.mean, b.sum, &t);
        apply_rows(j, &b, &t, n, it->ahead, it->in, it->out);
    }
}

static void measure(const job *j, const item *it, int64_t begin, int64_t end, double *mean, double *sum) {
    if (j->columns)
        measure_columns(j, it, begin, end, mean, sum);
    else
        measure_run(j, it, begin, end, mean, sum);
}

static void decide(const job *j, const item *it, double *mean, double *sum, tables *t) {
    if (j->columns) {
        settle_columns(j, it, mean, sum, t);
    } else if (j->mean || j->spread) {
        settle(j, 1, &it->affine, mean, sum, t);
        give(j, it->stat, *mean, *t->spread);
    }
}

static void apply(const job *j, const item *it, const tables *t, const double *mean, const double *sum, int64_t begin, int64_t end) {
    if (!it->out) return;
    if (j->columns)
        apply_columns(j, it, t, begin, end);
    else
        apply_run(j, it, *mean, *sum, begin, end);
}

static void whole_items(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    double mean[COLUMNS], sum[COLUMNS];
    tables t;
    for (int64_t at = begin; at < end; at++) {
        item it = item_at(j, at);
        if (at + 1 < end && j->size > 8 * INFOLD_RUN_BLOCK) it.ahead = item_at(j, at + 1).in - it.in;
        measure(j, &it, 0, j->size, mean, sum);
        decide(j, &it, mean, sum, &t);
        apply(j, &it, &t, mean, sum, 0, j->size);
    }
    if (j->stream) j->kernels->stream_end();
}

/* Rows, several at a time: the chains of dependent arithmetic of short ones overlap, and long ones share what each call costs. */
static void batches_of_rows(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const int64_t n = j->p.group;
    const bool one_by_one = j->p.power == 1 || n > INFOLD_SHORT_ROW;
    batch b;
    tables t;
    for (int64_t at = begin; at < end; at += b.rows) {
        const item it = item_at(j, at);
        const int64_t chunk = j->chunks - at % j->chunks, rest = end - at < chunk ? end - at : chunk;
        b.rows = j->rows < rest ? j->rows : rest;
        for (int64_t r = 0; r < b.rows; r++) {
            b.in[r] = r * j->in_step;
            b.out[r] = r * j->out_step;
            b.affine[r] = it.affine + r * j->affine_step;
            b.mean[r] = b.sum[r] = 0.0;
            if (one_by_one) measure_elements(j, n, it.in + b.in[r], 0, &b.mean[r], &b.sum[r]);
        }
        if (!one_by_one) j->kernels->moments_rows(j->p.power == 0, b.rows, n, b.in, it.in, b.mean, b.sum);
        settle(j, b.rows, b.affine, b.mean, b.sum, &t);
        for (int64_t r = 0; r < b.rows && (j->mean || j->spread); r++) give(j, it.stat + r * j->stat_step, b.mean[r], t.spread[r]);
        if (it.out) apply_rows(j, &b, &t, n, rest > b.rows ? b.rows * j->in_step : 0, it.in, it.out);
    }
    if (j->stream) j->kernels->stream_end();
}

/* Whole vectors from the start of the item, so that a block streams if the item does. */
static int64_t block_begin(const job *j, int64_t block) {
    return block == j->blocks ? j->size : j->size / j->blocks * block / INFOLD_MAX_LANES * INFOLD_MAX_LANES;
}

static void measure_blocks(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    for (int64_t b = begin; b < end; b++)
        measure(j, &j->item, block_begin(j, b), block_begin(j, b + 1), j->means + b * j->item.width, j->sums + b * j->item.width);
}

/* Backwards: what was read last is still in the cache. */
static void apply_blocks(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    for (int64_t b = end; b-- > begin;) apply(j, &j->item, j->tables, j->means, j->sums, block_begin(j, b), block_begin(j, b + 1));
    if (j->stream) j->kernels->stream_end();
}

static void item_in_blocks(const infold_ctx *ctx, const job *shape, int64_t at) {
    double means[PARTIALS], sums[PARTIALS];
    tables t;
    job j = *shape;
    j.item = item_at(shape, at), j.means = means, j.sums = sums, j.tables = &t;
    infold_parallel(ctx, j.blocks, 1, measure_blocks, &j);
    for (int64_t b = 1; b < j.blocks; b++) {
        const int64_t before = block_begin(&j, b), size = block_begin(&j, b + 1) - before;
        if (size) join(j.item.width, means, sums, (double)before, means + b * j.item.width, sums + b * j.item.width, (double)size);
    }
    decide(&j, &j.item, means, sums, &t);
    infold_parallel(ctx, j.blocks, 1, apply_blocks, &j);
}

/* Few channels: several pixels are read as one, where they lie side by side. */
static void widen(job *j) {
    norm_params *p = &j->p;
    if (p->in_pixel[3] != p->channels || (j->out && p->out_pixel[3] != p->channels)) return;
    if (p->channels > NARROW) return;
    int64_t pixels = COLUMNS / p->channels;
    if (pixels > p->pixels[3] / INFOLD_REDUCE_BLOCK) pixels = p->pixels[3] / INFOLD_REDUCE_BLOCK;
    while (pixels > 1 && p->pixels[3] % pixels) pixels--;
    if (pixels <= 1) return;
    j->repeat = pixels;
    p->channels *= pixels;
    p->pixels[3] /= pixels;
    p->in_pixel[3] *= pixels;
    p->out_pixel[3] *= pixels;
}

static bool moves(const int64_t n[4], const int64_t stride[4]) {
    for (int i = 0; i < 4; i++)
        if (n[i] > 1 && stride[i]) return true;
    return false;
}

static bool one_run(const norm_params *p) {
    int64_t n = p->group;
    for (int i = 3; i >= 0; n *= p->pixels[i--])
        if (p->pixels[i] > 1 && p->in_pixel[i] != n) return false;
    return true;
}

/* The items of one step of n lie side by side: groups of channels or, where there is one, the innermost steps of n. */
static void take_steps(job *j) {
    norm_params *p = &j->p;
    j->chunks = (p->channels + j->width - 1) / j->width;
    j->in_step = j->out_step = j->width;
    j->affine_step = j->width * p->affine_channel, j->stat_step = j->width / p->group * p->stat_group;
    if (j->columns || j->chunks > 1) return;
    j->chunks = p->n[3], p->n[3] = 1;
    j->in_step = p->in_stride[3], j->out_step = p->out_stride[3];
    j->affine_step = p->affine_stride[3], j->stat_step = p->stat_stride[3];
}

/* Whether what is written is more than the caches keep, or would drive out what is read a second time from there; and begins on
 * whole vectors. */
static bool streams(const job *j, int64_t read_again) {
    const norm_params *p = &j->p;
    const int64_t elements = pixel_count(p->n) * pixel_count(p->pixels) * p->channels;
    if (!j->out || j->act.late || p->far == 0 || (elements < p->far && read_again < p->far / 4 * 3)) return false;
    if ((uintptr_t)j->out % INFOLD_ALIGN || j->width % INFOLD_MAX_LANES) return false;
    for (int i = 0; i < 4; i++)
        if ((p->n[i] > 1 && p->out_stride[i] % INFOLD_MAX_LANES) || (p->pixels[i] > 1 && p->out_pixel[i] % INFOLD_MAX_LANES)) return false;
    return true;
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    job j = {.p = *(const norm_params *)params, .kernels = ctx->kernels, .in = args[IN], .out = args[OUT], .mean = args[MEAN],
             .spread = args[SPREAD], .repeat = 1};
    norm_params *p = &j.p;
    for (int i = GAMMA; i <= FLOOR; i++) j.affine[i] = args[i];
    j.act = activation_of(p->act, p->a, p->b);
    j.how = (infold_norm_how){j.affine[FLOOR] ? INFOLD_NORM_BOUNDED : j.affine[V] ? INFOLD_NORM_GATED : INFOLD_NORM_CENTERED,
                              p->power, p->inverse, p->divisor, p->epsilon, p->offset};
    if (pixel_count(p->pixels) == 0) return;
    j.columns = pixel_count(p->pixels) > 1 && p->group <= COLUMNS && !moves(p->pixels, p->affine_pixel);
    if (j.columns) {
        widen(&j);
        j.size = pixel_count(p->pixels);
        j.width = p->near / j.size < NARROW || p->near / j.size > COLUMNS ? COLUMNS : p->near / j.size;
        if (j.repeat > 1 || j.width > p->channels) j.width = p->channels;
        j.width = j.width > p->group ? j.width / p->group * p->group : p->group;
    } else {
        j.width = p->group;
        j.size = pixel_count(p->pixels) * p->group;
    }
    j.flat = one_run(p);
    const bool same = !p->affine_channel || (j.width == p->channels && !moves(p->n, p->affine_stride));
    const int64_t work = j.columns ? j.size * j.width : j.size;
    j.stream = streams(&j, work > p->near ? work : 0);
    take_steps(&j);
    const int64_t items = pixel_count(p->n) * j.chunks;
    if (!j.columns && pixel_count(p->pixels) == 1 && p->group <= 4 * INFOLD_SHORT_ROW) {
        const int64_t fit = 4 * INFOLD_SHORT_ROW / p->group; /* with what is prefetched behind them, in the first-level cache */
        j.rows = !same ? 1 : fit > ROWS ? ROWS : fit < 4 ? fit : fit / 4 * 4; /* `moments_rows` takes four at a time */
        infold_parallel(ctx, items, 1 + 16384 / work, batches_of_rows, &j);
        return;
    }
    if (work <= p->near) {
        infold_parallel(ctx, items, 1 + 16384 / work, whole_items, &j);
        return;
    }
    j.blocks = j.columns ? PARTIALS / j.width : PARTIALS / NARROW;
    for (int64_t at = 0; at < items; at++) item_in_blocks(ctx, &j, at);
}

const infold_op infold_op_norm = {
    .name = "norm",
    .params = "n[4] in_stride[4] out_stride[4] affine_stride[4] stat_stride[4] pixels[4] in_pixel[4] out_pixel[4] affine_pixel[4] "
              "channels group affine_channel stat_group power inverse act near far divisor:f epsilon:f offset:f a:f b:f",
    .args = "in gamma? beta? v? floor? out? mean? spread?",
    .params_size = sizeof(norm_params),
    .check = check,
    .run = run,
};
