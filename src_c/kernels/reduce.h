/* Reductions across rows (one result per column) and along a contiguous run. A sum is taken naively over short blocks only;
 * their sums are joined without loss: by compensated addition in columns, in double along a run. */
#include <stdbool.h>

/* The kind is a constant wherever these are called: its switches vanish. */
INLINE vf reduce_start(const infold_reduction kind) {
    return v_set1(kind == INFOLD_REDUCE_MAX    ? -INFINITY
                  : kind == INFOLD_REDUCE_MIN  ? INFINITY
                  : kind == INFOLD_REDUCE_PROD ? 1.0f
                                               : 0.0f);
}

INLINE vf reduce_step(const infold_reduction kind, vf acc, vf x, vf shift) {
    switch (kind) {
    case INFOLD_REDUCE_MAX: return v_sel(v_eq(acc, acc), v_max(acc, x), acc); /* NaN stays */
    case INFOLD_REDUCE_MIN: return v_sel(v_eq(acc, acc), v_min(acc, x), acc);
    case INFOLD_REDUCE_PROD: return acc * x;
    case INFOLD_REDUCE_SUM_SQUARE: return v_fma(x, x, acc);
    case INFOLD_REDUCE_L1: return acc + v_abs(x);
    case INFOLD_REDUCE_LOG_SUM_EXP: return acc + v_exp(x - shift);
    default: return acc + x;
    }
}

/* Two results of reduce_step become one. */
INLINE vf reduce_join(const infold_reduction kind, vf a, vf b) {
    const bool sum = kind != INFOLD_REDUCE_MAX && kind != INFOLD_REDUCE_MIN && kind != INFOLD_REDUCE_PROD;
    return reduce_step(sum ? INFOLD_REDUCE_SUM : kind, a, b, a);
}

/* s + c gains p (Knuth's two-sum); beyond the finite numbers there is nothing to compensate. */
static inline void sum_compensated(vf *s, vf *c, vf p) {
    const vf t = *s + p, b = t - *s, lost = (*s - (t - b)) + (p - b);
    *c += v_sel(v_eq(lost, lost), lost, v_set1(0.0f));
    *s = t;
}

/* nv whole vectors of columns, or one of `live` columns. */
INLINE void reduce_columns_tile(const infold_reduction kind, const int nv, int64_t live, int64_t taps, const int64_t *tap,
                                const num *in, const float *shift, float *acc, float *comp) {
    vf part[4], by[4];
    const bool compensate = kind != INFOLD_REDUCE_MAX && kind != INFOLD_REDUCE_MIN && kind != INFOLD_REDUCE_PROD;
    UNROLL for (int v = 0; v < nv; v++) {
        part[v] = reduce_start(kind);
        by[v] = kind == INFOLD_REDUCE_LOG_SUM_EXP ? load_live(shift + v * VL, live) : part[v];
    }
    for (int64_t t = 0; t < taps; t++) {
        const num *x = in + tap[t];
        UNROLL for (int v = 0; v < nv; v++) part[v] = reduce_step(kind, part[v], n_load(x + v * VL, live), by[v]);
    }
    UNROLL for (int v = 0; v < nv; v++) {
        vf s = load_live(acc + v * VL, live);
        if (compensate) {
            vf c = load_live(comp + v * VL, live);
            sum_compensated(&s, &c, part[v]);
            store_live(comp + v * VL, c, live);
        } else {
            s = reduce_join(kind, s, part[v]);
        }
        store_live(acc + v * VL, s, live);
    }
}

INLINE void reduce_columns_kind(const infold_reduction kind, int64_t n, int64_t taps, const int64_t *tap, const num *in,
                                const float *shift, float *acc, float *comp) {
    int64_t c = 0;
    for (; c + 4 * VL <= n; c += 4 * VL)
        reduce_columns_tile(kind, 4, VL, taps, tap, in + c, shift + c, acc + c, comp + c);
    for (; c + VL <= n; c += VL)
        reduce_columns_tile(kind, 1, VL, taps, tap, in + c, shift + c, acc + c, comp + c);
    if (c < n) reduce_columns_tile(kind, 1, n - c, taps, tap, in + c, shift + c, acc + c, comp + c);
}

/* One copy of the loop per kind, its switch gone. */
#define REDUCE_KINDS(X)                                                                                                 \
    switch (kind) {                                                                                                     \
    case INFOLD_REDUCE_MAX: X(INFOLD_REDUCE_MAX);                                                                       \
    case INFOLD_REDUCE_MIN: X(INFOLD_REDUCE_MIN);                                                                       \
    case INFOLD_REDUCE_PROD: X(INFOLD_REDUCE_PROD);                                                                     \
    case INFOLD_REDUCE_SUM_SQUARE: X(INFOLD_REDUCE_SUM_SQUARE);                                                         \
    case INFOLD_REDUCE_L1: X(INFOLD_REDUCE_L1);                                                                         \
    case INFOLD_REDUCE_LOG_SUM_EXP: X(INFOLD_REDUCE_LOG_SUM_EXP);                                                       \
    default: X(INFOLD_REDUCE_SUM);                                                                                      \
    }

static void reduce_columns_run(infold_reduction kind, int64_t n, int64_t taps, const int64_t *tap, const void *in,
                               const float *shift, float *acc, float *comp) {
#define X(k) reduce_columns_kind(k, n, taps, tap, in, shift, acc, comp); return
    REDUCE_KINDS(X)
#undef X
}

#ifndef NUM_BF16
/* Lanes that are not live hold `fill`. */
static inline vf load_padded(const float *p, int64_t live, float fill) {
    static const float lane[INFOLD_MAX_LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return live >= VL ? v_load(p) : v_sel(v_lt(v_load(lane), v_set1((float)live)), v_loadn(p, live), v_set1(fill));
}

/* One vector's lanes become one number. */
INLINE double reduce_lanes(const infold_reduction kind, vf a) {
    float lane[VL];
    v_store(lane, a);
    double out = lane[0];
    for (int i = 1; i < VL; i++) {
        const double x = lane[i];
        if (kind == INFOLD_REDUCE_MAX)
            out = out != out || out > x ? out : x;
        else if (kind == INFOLD_REDUCE_MIN)
            out = out != out || out < x ? out : x;
        else if (kind == INFOLD_REDUCE_PROD)
            out *= x;
        else
            out += x;
    }
    return out;
}

/* The element that changes no result. */
static inline float reduce_neutral(const infold_reduction kind) {
    return kind == INFOLD_REDUCE_MAX || kind == INFOLD_REDUCE_LOG_SUM_EXP ? -INFINITY
           : kind == INFOLD_REDUCE_MIN                                   ? INFINITY
           : kind == INFOLD_REDUCE_PROD                                  ? 1.0f
                                                                         : 0.0f;
}

INLINE double reduce_run_kind(const infold_reduction kind, int64_t n, const float *x, float shift) {
    enum { BLOCK = 4 * VL * INFOLD_REDUCE_BLOCK };
    const vf by = v_set1(shift);
    const bool keep = kind == INFOLD_REDUCE_MAX || kind == INFOLD_REDUCE_MIN;
    vf best = reduce_start(kind);
    double total = kind == INFOLD_REDUCE_PROD ? 1.0 : 0.0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = n - begin < BLOCK ? n : begin + BLOCK;
        int64_t i = begin;
        vf part[4];
        UNROLL for (int v = 0; v < 4; v++) part[v] = reduce_start(kind);
        for (; i + 4 * VL <= end; i += 4 * VL)
            UNROLL for (int v = 0; v < 4; v++) part[v] = reduce_step(kind, part[v], v_load(x + i + v * VL), by);
        for (; i + VL <= end; i += VL) part[0] = reduce_step(kind, part[0], v_load(x + i), by);
        if (i < end) part[1] = reduce_step(kind, part[1], load_padded(x + i, end - i, reduce_neutral(kind)), by);
        const vf sum = reduce_join(kind, reduce_join(kind, part[0], part[1]), reduce_join(kind, part[2], part[3]));
        if (keep)
            best = reduce_join(kind, best, sum);
        else if (kind == INFOLD_REDUCE_PROD)
            total *= reduce_lanes(kind, sum);
        else
            total += (double)v_sum(sum);
    }
    return keep ? reduce_lanes(kind, best) : total;
}

static double reduce_run_run(infold_reduction kind, int64_t n, const float *x, float shift) {
#define X(k) return reduce_run_kind(k, n, x, shift)
    REDUCE_KINDS(X)
#undef X
}
#endif
