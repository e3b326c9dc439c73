/* The statistics of `norm`: what is measured of an item, how parts are joined, and the numbers that normalise it. */
#ifndef INFOLD_NORM_H
#define INFOLD_NORM_H

#include "drivers/activation.h"
#include "drivers/rows.h"

typedef struct {
    int64_t n[4], in_stride[4], out_stride[4], affine_stride[4], stat_stride[4];
    int64_t pixels[4], in_pixel[4], out_pixel[4], affine_pixel[4];
    int64_t channels, group, affine_channel, stat_group;
    int64_t power, inverse, act;
    double divisor, epsilon, offset, a, b;
} norm_params;

enum { IN, GAMMA, BETA, V, FLOOR, OUT, MEAN, SPREAD };
enum { COLUMNS = 256, NARROW = 64, PARTIALS = 2048, ROWS = 32 };

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
    bool columns, stream;
    int64_t rows;          /* taken at a time, where a run is the whole item */
    int64_t repeat;        /* pixels read as one, side by side */
    int64_t size;          /* of an item: pixels, or elements of its runs */
    int64_t width, chunks; /* channels of an item, and items per step of n */
    item item;             /* of the blocks below */
    int64_t blocks;
    double *means, *sums;  /* of each block */
    tables *tables;        /* of its columns */
    statistics *run;       /* of its run */
} job;

typedef struct {
    infold_pixel n;
    int64_t chunk;
} cursor;

static cursor cursor_at(const job *j, int64_t at) { return (cursor){pixel_at(j->p.n, at / j->chunks), at % j->chunks}; }

static void cursor_next(const job *j, cursor *c) {
    if (++c->chunk < j->chunks) return;
    c->chunk = 0;
    pixel_next(&c->n, j->p.n);
}

static item item_at(const job *j, const cursor *c) {
    const norm_params *p = &j->p;
    const int64_t first = c->chunk * j->width, left = p->channels - first;
    const int64_t stat = first ? first / p->group * p->stat_group : 0; /* (repeated pixels are one chunk: their first is 0) */
    return (item){j->in + pixel_offset(&c->n, p->in_stride) + first,
                  j->out ? j->out + pixel_offset(&c->n, p->out_stride) + first : NULL,
                  pixel_offset(&c->n, p->affine_stride) + first * p->affine_channel, pixel_offset(&c->n, p->stat_stride) + stat,
                  !j->columns ? 1 : left < j->width ? left : j->width};
}

/* n sets of sums over `count` elements take in those over `more` (Chan, Golub, LeVeque 1979). */
static void join(int64_t n, double *mean, double *sum, double count, const double *other_mean, const double *other_sum, double more) {
    const double share = more / (count + more), weight = count * share;
    for (int64_t c = 0; c < n; c++) {
        const double delta = other_mean[c] - mean[c];
        mean[c] += delta * share;
        sum[c] += other_sum[c] + delta * delta * weight;
    }
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

static void measure_elements(const job *j, int64_t n, const float *in, int64_t count, double *mean, double *sum) {
    if (j->p.power == 1)
        *sum += j->kernels->reduce_run(INFOLD_REDUCE_L1, n, in, 0.0f);
    else
        j->kernels->moments_run(n, in, count, mean, sum);
}

static void measure_run(const job *j, const item *it, int64_t begin, int64_t end, double *mean, double *sum) {
    const norm_params *p = &j->p;
    *mean = *sum = 0.0;
    infold_pixel x = pixel_at(p->pixels, begin / p->group);
    for (int64_t at = begin, skip = begin % p->group; at < end; skip = 0, pixel_next(&x, p->pixels)) {
        const int64_t rest = end - at, n = p->group - skip < rest ? p->group - skip : rest;
        measure_elements(j, n, it->in + pixel_offset(&x, p->in_pixel) + skip, at - begin, mean, sum);
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
static void enter(const job *j, statistics s, tables *t, int64_t c, int64_t at) {
    const bool affine = j->columns || !j->p.affine_channel; /* else gamma and beta follow, element by element */
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
        double middle = 0.0, all = 0.0;
        for (int64_t r = g; r < it->width; r += channels)
            for (int64_t c = r; c < r + p->group; c++) middle += mean[c];
        if (p->group * j->repeat > 1) middle /= (double)(p->group * j->repeat);
        for (int64_t r = g; r < it->width; r += channels)
            for (int64_t c = r; c < r + p->group; c++) all += sum[c] + (mean[c] - middle) * (mean[c] - middle) * (double)j->size;
        const statistics s = settle(p, middle, all, (double)pixels * (double)p->group);
        give(j, it->stat + g / p->group * p->stat_group, s);
        for (int64_t r = g; r < it->width; r += channels)
            for (int64_t c = 0; c < p->group; c++) enter(j, s, t, r + c, it->affine + (g + c) * p->affine_channel);
    }
}

#endif
