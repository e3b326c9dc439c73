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
 * Where what belongs together fits the second-level cache, one thread reads it twice; what does not is cut into blocks for all
 * threads. The cuts depend on shapes alone: results are the same for any number of threads. */
#include "drivers/activation.h"
#include "drivers/check.h"
#include "drivers/parallel.h"
#include "drivers/rows.h"

typedef struct {
    int64_t n[4], in_stride[4], out_stride[4], affine_stride[4], stat_stride[4];
    int64_t pixels[4], in_pixel[4], out_pixel[4], affine_pixel[4];
    int64_t channels, group, affine_channel, stat_group;
    int64_t power, inverse, act;
    double divisor, epsilon, offset, a, b;
} norm_params;

enum { IN, GAMMA, BETA, V, FLOOR, OUT, MEAN, SPREAD };
enum { COLUMNS = 256, NARROW = 64, PARTIALS = 2048 };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const norm_params *p = params;
    CHECK(p->channels >= 1 && p->group >= 1 && p->channels % p->group == 0, INFOLD_EPARAM);
    CHECK(p->act >= 0 && p->act < INFOLD_ACT_COUNT && p->act != INFOLD_PRELU, INFOLD_EPARAM);
    CHECK(p->power >= 0 && p->power <= 2 && p->divisor > 0.0, INFOLD_EPARAM);
    CHECK(p->affine_channel == 0 || p->affine_channel == 1, INFOLD_EPARAM);
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

/* What one set of sums is taken over: `width` channels side by side, or a single group along runs. */
typedef struct {
    const float *in;
    float *out;
    int64_t affine, stat, width;
} item;

/* Where x goes, by column, or in [0] for a run. */
typedef struct {
    float center[COLUMNS], scale[COLUMNS], shift[COLUMNS], v[COLUMNS], floor[COLUMNS];
} tables;

typedef struct {
    double mean, spread, deviation, scale;
} statistics;

typedef struct {
    norm_params p;
    const infold_kernels *kernels;
    const float *in, *affine[FLOOR + 1];
    float *out, *mean, *spread;
    infold_activation act;
    infold_norm_form form;
    bool columns;
    int64_t repeat;        /* pixels read as one, side by side */
    int64_t size;          /* of an item: pixels, or elements of its runs */
    int64_t width, chunks; /* channels of an item, and items per step of n */
    item item;             /* of the blocks below */
    int64_t blocks;
    double *means, *sums;  /* of each block */
    tables *tables;        /* of its columns */
    statistics *run;       /* of its run */
} job;

static item item_at(const job *j, int64_t at) {
    const norm_params *p = &j->p;
    const infold_pixel n = pixel_at(p->n, at / j->chunks);
    const int64_t first = at % j->chunks * j->width, left = p->channels - first;
    const int64_t group = p->group; /* of channels as the caller counts them: repeated pixels are never cut into chunks */
    return (item){j->in + pixel_offset(&n, p->in_stride) + first, j->out ? j->out + pixel_offset(&n, p->out_stride) + first : NULL,
                  pixel_offset(&n, p->affine_stride) + first * p->affine_channel,
                  pixel_offset(&n, p->stat_stride) + first / group * p->stat_group,
                  !j->columns ? 1 : left < j->width ? left : j->width};
}

static void join(double *mean, double *sum, double count, double other_mean, double other_sum, double other_count) {
    const double all = count + other_count, delta = other_mean - *mean;
    *mean += delta * (other_count / all);
    *sum += other_sum + delta * delta * (count * other_count / all);
}

static void measure_columns(const job *j, const item *it, int64_t begin, int64_t end, double *mean, double *sum) {
    const norm_params *p = &j->p;
    float high[COLUMNS] = {0}, low[COLUMNS] = {0}, square[COLUMNS] = {0};
    infold_pixel x = pixel_at(p->pixels, begin);
    for (int64_t at = begin; at < end;) {
        int64_t tap[INFOLD_REDUCE_BLOCK], taps = 0;
        for (; taps < INFOLD_REDUCE_BLOCK && at + taps < end; pixel_next(&x, p->pixels)) tap[taps++] = pixel_offset(&x, p->in_pixel);
        if (p->power == 1)
            j->kernels->reduce_columns(INFOLD_REDUCE_L1, it->width, taps, tap, it->in, NULL, square, low);
        else
            j->kernels->moments_columns(it->width, taps, tap, it->in, at - begin, high, low, square);
        at += taps;
    }
    for (int64_t c = 0; c < it->width; c++) {
        mean[c] = p->power == 1 ? 0.0 : (double)high[c] + (double)low[c];
        sum[c] = p->power == 1 ? (double)square[c] + (double)low[c] : (double)square[c];
    }
}

static void measure_run(const job *j, const item *it, int64_t begin, int64_t end, double *mean, double *sum) {
    const norm_params *p = &j->p;
    *mean = *sum = 0.0;
    infold_pixel x = pixel_at(p->pixels, begin / p->group);
    for (int64_t at = begin, skip = begin % p->group; at < end; skip = 0, pixel_next(&x, p->pixels)) {
        const int64_t rest = end - at, n = p->group - skip < rest ? p->group - skip : rest;
        const float *in = it->in + pixel_offset(&x, p->in_pixel) + skip;
        if (p->power == 1)
            *sum += j->kernels->reduce_run(INFOLD_REDUCE_L1, n, in, 0.0f);
        else
            j->kernels->moments_run(n, in, at - begin, mean, sum);
        at += n;
    }
}

static statistics settle(const norm_params *p, double mean, double sum, double count) {
    if (p->power == 2) sum += mean * mean * count;
    const double spread = sum / p->divisor;
    const double deviation = (p->power == 1 ? spread : sqrt(spread + p->epsilon)) + p->offset;
    return (statistics){mean, spread, deviation, deviation == 0.0 && p->power ? 0.0 : 1.0 / deviation};
}

static void give(const job *j, int64_t at, statistics s) {
    if (j->mean) j->mean[at] = (float)s.mean;
    if (j->spread) j->spread[at] = (float)(j->p.inverse ? s.scale : s.spread);
}

/* The entry of one column: `at` is its place in gamma, beta, v and floor; the part of the mean that one float cannot hold goes
 * into the shift. */
static void enter(const job *j, statistics s, tables *t, int64_t c, int64_t at, bool affine) {
    const float gamma = affine && j->affine[GAMMA] ? j->affine[GAMMA][at] : 1.0f;
    const float beta = affine && j->affine[BETA] ? j->affine[BETA][at] : 0.0f;
    const bool bounded = j->form == INFOLD_NORM_BOUNDED, centered = j->form == INFOLD_NORM_CENTERED && j->p.power == 0;
    const float mean = (float)s.mean, low = isfinite(mean) ? (float)(s.mean - (double)mean) : 0.0f;
    t->center[c] = bounded ? (float)s.deviation : centered ? mean : 0.0f;
    t->scale[c] = bounded ? gamma : (float)(s.scale * (double)gamma);
    t->shift[c] = centered ? beta - low * t->scale[c] : beta;
    if (j->affine[V]) t->v[c] = j->affine[V][at];
    if (j->affine[FLOOR]) t->floor[c] = j->affine[FLOOR][at];
}

static void settle_columns(const job *j, const item *it, const double *mean, const double *sum, tables *t) {
    const norm_params *p = &j->p;
    const int64_t channels = it->width / j->repeat, pixels = j->size * j->repeat;
    for (int64_t g = 0; g < channels; g += p->group) {
        double middle = 0.0, all = 0.0, members = (double)(p->group * j->repeat);
        for (int64_t r = g; r < it->width; r += channels)
            for (int64_t c = r; c < r + p->group; c++) middle += mean[c] / members;
        for (int64_t r = g; r < it->width; r += channels)
            for (int64_t c = r; c < r + p->group; c++) all += sum[c] + (mean[c] - middle) * (mean[c] - middle) * (double)j->size;
        const statistics s = settle(p, middle, all, (double)pixels * (double)p->group);
        give(j, it->stat + g / p->group * p->stat_group, s);
        for (int64_t r = g; r < it->width; r += channels)
            for (int64_t c = 0; c < p->group; c++) enter(j, s, t, r + c, it->affine + (g + c) * p->affine_channel, true);
    }
}

static infold_norm_by numbers(const job *j, const tables *t) {
    return (infold_norm_by){.center = t->center, .scale = t->scale, .shift = t->shift, .v = t->v, .floor = t->floor, .v_each = true,
                            .lo = j->act.lo, .hi = j->act.hi};
}

static void late(const job *j, int64_t n, float *out) {
    if (j->act.late) j->kernels->act((infold_act)j->p.act, n, out, out, NULL, (float)j->p.a, (float)j->p.b);
}

static void apply_columns(const job *j, const item *it, const tables *t, int64_t begin, int64_t end) {
    const norm_params *p = &j->p;
    const infold_norm_by by = numbers(j, t);
    infold_pixel x = pixel_at(p->pixels, begin);
    for (int64_t at = begin; at < end;) {
        int64_t in[INFOLD_REDUCE_BLOCK], out[INFOLD_REDUCE_BLOCK], taps = 0;
        for (; taps < INFOLD_REDUCE_BLOCK && at < end; at++, taps++, pixel_next(&x, p->pixels)) {
            in[taps] = pixel_offset(&x, p->in_pixel);
            out[taps] = pixel_offset(&x, p->out_pixel);
        }
        j->kernels->normalize(j->form, true, it->width, taps, in, out, it->in, &by, it->out);
        for (int64_t i = 0; i < taps && j->act.late; i++) late(j, it->width, it->out + out[i]);
    }
}

/* One set of statistics; gamma and its like by element or one for a whole run. */
static void apply_run(const job *j, const item *it, const statistics *s, int64_t begin, int64_t end) {
    const norm_params *p = &j->p;
    const bool each = p->affine_channel;
    tables t;
    infold_pixel x = pixel_at(p->pixels, begin / p->group);
    for (int64_t at = begin, skip = begin % p->group; at < end; skip = 0, pixel_next(&x, p->pixels)) {
        const int64_t rest = end - at, n = p->group - skip < rest ? p->group - skip : rest, zero = 0;
        const int64_t affine = it->affine + pixel_offset(&x, p->affine_pixel) + skip * p->affine_channel;
        enter(j, *s, &t, 0, affine, !each);
        infold_norm_by by = numbers(j, &t);
        by.v_each = each;
        if (each) {
            if (j->affine[GAMMA]) by.gamma = j->affine[GAMMA] + affine;
            if (j->affine[BETA]) by.beta = j->affine[BETA] + affine;
            if (j->affine[V]) by.v = j->affine[V] + affine;
            if (j->affine[FLOOR]) by.floor = j->affine[FLOOR] + affine;
        }
        float *out = it->out + pixel_offset(&x, p->out_pixel) + skip;
        j->kernels->normalize(j->form, false, n, 1, &zero, &zero, it->in + pixel_offset(&x, p->in_pixel) + skip, &by, out);
        late(j, n, out);
        at += n;
    }
}

static void measure(const job *j, const item *it, int64_t begin, int64_t end, double *mean, double *sum) {
    if (j->columns)
        measure_columns(j, it, begin, end, mean, sum);
    else
        measure_run(j, it, begin, end, mean, sum);
}

static void decide(const job *j, const item *it, const double *mean, const double *sum, tables *t, statistics *s) {
    if (j->columns) {
        settle_columns(j, it, mean, sum, t);
    } else {
        *s = settle(&j->p, *mean, *sum, (double)j->size);
        give(j, it->stat, *s);
    }
}

static void apply(const job *j, const item *it, const tables *t, const statistics *s, int64_t begin, int64_t end) {
    if (!it->out) return;
    if (j->columns)
        apply_columns(j, it, t, begin, end);
    else
        apply_run(j, it, s, begin, end);
}

static void whole_items(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    double mean[COLUMNS], sum[COLUMNS];
    tables t;
    statistics s;
    for (int64_t at = begin; at < end; at++) {
        const item it = item_at(j, at);
        measure(j, &it, 0, j->size, mean, sum);
        decide(j, &it, mean, sum, &t, &s);
        apply(j, &it, &t, &s, 0, j->size);
    }
}

static int64_t block_begin(const job *j, int64_t block) { return j->size / j->blocks * block + j->size % j->blocks * block / j->blocks; }

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
    for (int64_t b = end; b-- > begin;) apply(j, &j->item, j->tables, j->run, block_begin(j, b), block_begin(j, b + 1));
}

static void item_in_blocks(const infold_ctx *ctx, const job *shape, int64_t at) {
    double means[PARTIALS], sums[PARTIALS];
    tables t;
    statistics s;
    job j = *shape;
    j.item = item_at(shape, at), j.means = means, j.sums = sums, j.tables = &t, j.run = &s;
    infold_parallel(ctx, j.blocks, 1, measure_blocks, &j);
    for (int64_t b = 1; b < j.blocks; b++)
        for (int64_t c = 0; c < j.item.width; c++)
            join(&means[c], &sums[c], (double)block_begin(&j, b), means[b * j.item.width + c], sums[b * j.item.width + c],
                 (double)(block_begin(&j, b + 1) - block_begin(&j, b)));
    decide(&j, &j.item, means, sums, &t, &s);
    infold_parallel(ctx, j.blocks, 1, apply_blocks, &j);
}

/* Few channels: as many whole pixels as make NARROW columns are read as one, where they lie side by side. */
static void widen(job *j) {
    norm_params *p = &j->p;
    if (p->in_pixel[3] != p->channels || (j->out && p->out_pixel[3] != p->channels)) return;
    int64_t pixels = NARROW / p->channels;
    if (pixels > p->pixels[3]) pixels = p->pixels[3];
    while (pixels > 1 && p->pixels[3] % pixels) pixels--;
    if (pixels <= 1) return;
    j->repeat = pixels;
    p->channels *= pixels;
    p->pixels[3] /= pixels;
    p->in_pixel[3] *= pixels;
    p->out_pixel[3] *= pixels;
}

static bool varies_by_pixel(const norm_params *p) {
    for (int i = 0; i < 4; i++)
        if (p->pixels[i] > 1 && p->affine_pixel[i]) return true;
    return false;
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    job j = {.p = *(const norm_params *)params, .kernels = ctx->kernels, .in = args[IN], .out = args[OUT], .mean = args[MEAN],
             .spread = args[SPREAD], .repeat = 1};
    norm_params *p = &j.p;
    for (int i = GAMMA; i <= FLOOR; i++) j.affine[i] = args[i];
    j.act = activation_of(p->act, p->a, p->b);
    j.form = j.affine[FLOOR] ? INFOLD_NORM_BOUNDED : j.affine[V] ? INFOLD_NORM_GATED : INFOLD_NORM_CENTERED;
    if (pixel_count(p->pixels) == 0) return;
    j.columns = pixel_count(p->pixels) > 1 && p->group <= COLUMNS && !varies_by_pixel(p);
    const int64_t cache = infold_cache_bytes(2) / 8; /* floats in half of it */
    const int64_t budget = cache > 0 ? cache : 1 << 16;
    if (j.columns) {
        widen(&j);
        j.size = pixel_count(p->pixels);
        j.width = budget / j.size < NARROW || budget / j.size > COLUMNS ? COLUMNS : budget / j.size;
        if (j.repeat > 1 || j.width > p->channels) j.width = p->channels;
        j.width = j.width > p->group ? j.width / p->group * p->group : p->group;
    } else {
        j.width = p->group;
        j.size = pixel_count(p->pixels) * p->group;
    }
    j.chunks = (p->channels + j.width - 1) / j.width;
    const int64_t items = pixel_count(p->n) * j.chunks, work = j.columns ? j.size * j.width : j.size;
    if (work <= budget) {
        infold_parallel(ctx, items, 1 + 16384 / work, whole_items, &j);
        return;
    }
    j.blocks = j.columns ? PARTIALS / j.width : PARTIALS / NARROW;
    for (int64_t at = 0; at < items; at++) item_in_blocks(ctx, &j, at);
}

const infold_op infold_op_norm = {
    .name = "norm",
    .params = "n[4] in_stride[4] out_stride[4] affine_stride[4] stat_stride[4] pixels[4] in_pixel[4] out_pixel[4] affine_pixel[4] "
              "channels group affine_channel stat_group power inverse act divisor:f epsilon:f offset:f a:f b:f",
    .args = "in gamma? beta? v? floor? out? mean? spread?",
    .params_size = sizeof(norm_params),
    .check = check,
    .run = run,
};
