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
    int64_t near, far; /* elements that one thread keeps while it reads twice; that no cache keeps for the next reader (0: any) */
    double divisor, epsilon, offset, a, b;
} norm_params;

enum { IN, GAMMA, BETA, V, FLOOR, OUT, MEAN, SPREAD };
enum { COLUMNS = 256, NARROW = 64, PARTIALS = 2048, ROWS = 32 };

/* What one set of sums is taken over: `width` channels side by side, or a single group along runs. */
typedef struct {
    const float *in;
    float *out;
    int64_t affine, stat, width;
    int64_t ahead; /* to the item that follows, 0 if none does */
} item;

/* Where x goes, by column or by row; what is given away; gamma, beta, v and floor. */
typedef struct {
    float center[COLUMNS], scale[COLUMNS], shift[COLUMNS], spread[COLUMNS], affine[4][COLUMNS];
} tables;

/* Rows of one length, with the sums of each, and where their gamma and its like begin. */
typedef struct {
    int64_t rows, in[ROWS], out[ROWS], affine[ROWS];
    double mean[ROWS], sum[ROWS];
} batch;

typedef struct {
    norm_params p;
    const infold_kernels *kernels;
    const float *in, *affine[FLOOR + 1];
    float *out, *mean, *spread;
    infold_activation act;
    infold_norm_how how;
    bool columns, stream;
    bool flat;             /* the pixels of an item are one run */
    int64_t rows;          /* taken at a time, where a run is the whole item */
    int64_t repeat;        /* pixels read as one, side by side */
    int64_t size;          /* of an item: pixels, or elements of its runs */
    int64_t width, chunks; /* channels of an item, and items per step of n */
    int64_t in_step, out_step, affine_step, stat_step; /* from one of these items to the next */
    item item;             /* of the blocks below */
    int64_t blocks;
    double *means, *sums;  /* of each block, joined in the first */
    tables *tables;        /* of its columns */
} job;

static item item_at(const job *j, int64_t at) {
    const norm_params *p = &j->p;
    const infold_pixel n = pixel_at(p->n, at / j->chunks);
    const int64_t chunk = at % j->chunks, left = p->channels - chunk * j->width;
    return (item){j->in + pixel_offset(&n, p->in_stride) + chunk * j->in_step,
                  j->out ? j->out + pixel_offset(&n, p->out_stride) + chunk * j->out_step : NULL,
                  pixel_offset(&n, p->affine_stride) + chunk * j->affine_step,
                  pixel_offset(&n, p->stat_stride) + chunk * j->stat_step,
                  !j->columns ? 1 : left < j->width ? left : j->width, 0};
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
            j->kernels->moments_columns(p->power == 0, it->width, taps, tap, it->in, at - begin, high, low, square);
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
        j->kernels->moments_run(j->p.power == 0, n, in, count, mean, sum);
}

static void measure_run(const job *j, const item *it, int64_t begin, int64_t end, double *mean, double *sum) {
    const norm_params *p = &j->p;
    *mean = *sum = 0.0;
    if (j->flat) {
        measure_elements(j, end - begin, it->in + begin, 0, mean, sum);
        return;
    }
    infold_pixel x = pixel_at(p->pixels, begin / p->group);
    for (int64_t at = begin, skip = begin % p->group; at < end; skip = 0, pixel_next(&x, p->pixels)) {
        const int64_t rest = end - at, n = p->group - skip < rest ? p->group - skip : rest;
        measure_elements(j, n, it->in + pixel_offset(&x, p->in_pixel) + skip, at - begin, mean, sum);
        at += n;
    }
}

/* The numbers of n sets of sums; the gamma and its like of each lie at `at`. */
static void settle(const job *j, int64_t n, const int64_t *at, const double *mean, const double *sum, tables *t) {
    const bool affine = j->columns || !j->p.affine_channel; /* else gamma and beta follow, element by element */
    for (int i = GAMMA; i <= FLOOR; i++) {
        const float *from = affine ? j->affine[i] : NULL;
        float *to = t->affine[i - GAMMA];
        for (int64_t c = 0; c < n && from; c++) to[c] = from[at[c]];
        for (int64_t c = 0; c < n && !from && i <= BETA; c++) to[c] = i == GAMMA ? 1.0f : 0.0f;
    }
    j->kernels->settle(&j->how, n, mean, sum, t->affine[0], t->affine[1], t->center, t->scale, t->shift, t->spread);
}

static void give(const job *j, int64_t at, double mean, float spread) {
    if (j->mean) j->mean[at] = (float)mean;
    if (j->spread) j->spread[at] = spread;
}

/* Columns that belong together get the sums of all of them. */
static void settle_columns(const job *j, const item *it, double *mean, double *sum, tables *t) {
    const norm_params *p = &j->p;
    const int64_t channels = it->width / j->repeat;
    const double together = (double)(p->group * j->repeat);
    int64_t at[COLUMNS];
    at[0] = it->affine; /* GCC thinks of an item without columns */
    for (int64_t r = 0; r < it->width; r += channels)
        for (int64_t c = 0; c < channels; c++) at[r + c] = it->affine + c * p->affine_channel;
    for (int64_t g = 0; g < channels && together > 1.0; g += p->group) {
        double middle = 0.0, all = 0.0;
        for (int64_t r = g; r < it->width; r += channels)
            for (int64_t c = r; c < r + p->group; c++) middle += mean[c];
        middle /= together;
        for (int64_t r = g; r < it->width; r += channels)
            for (int64_t c = r; c < r + p->group; c++) all += sum[c] + (mean[c] - middle) * (mean[c] - middle) * (double)j->size;
        for (int64_t r = g; r < it->width; r += channels)
            for (int64_t c = r; c < r + p->group; c++) mean[c] = middle, sum[c] = all;
    }
    settle(j, it->width, at, mean, sum, t);
    for (int64_t g = 0; g < channels; g += p->group) give(j, it->stat + g / p->group * p->stat_group, mean[g], t->spread[g]);
}

#endif
