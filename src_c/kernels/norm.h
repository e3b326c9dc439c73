/* Moments and normalisation. Deviations are taken from a number near the mean (the mean so far, or an element), in one sweep; the
 * mean of a block and its sum of squares follow, and blocks are merged as by Chan, Golub and LeVeque (1979). Where that would cost
 * more than two bits, the block, now in the first-level cache, is read once more: the accuracy of two passes. */

/* x + ahead may be anywhere: a guess. */
INLINE void prefetch(const float *x, int64_t ahead) {
    __builtin_prefetch((const void *)((uintptr_t)x + (uintptr_t)ahead * sizeof(float)));
}

INLINE void moments_columns_tile(const bool centered, const int nv, int64_t live, int64_t taps, const int64_t *tap, const float *in,
                                 int64_t count, float *mean, float *low, float *m2) {
    const vf zero = v_set1(0.0f), part = v_set1(1.0f / (float)taps);
    vf m[4], l[4], sum[4], square[4];
    UNROLL for (int v = 0; v < nv; v++) {
        m[v] = !centered ? zero : load_live((count ? mean : in + tap[0]) + v * VL, live);
        l[v] = centered && count ? load_live(low + v * VL, live) : zero;
        sum[v] = square[v] = zero;
    }
    if (centered && !count) {
        for (int64_t t = 1; t < taps; t++) UNROLL for (int v = 0; v < nv; v++) sum[v] += load_live(in + tap[t] + v * VL, live) - m[v];
        UNROLL for (int v = 0; v < nv; v++) {
            m[v] = v_fma(sum[v], part, m[v]);
            sum[v] = zero;
        }
    }
    const int64_t ahead = taps > 1 ? (tap[1] - tap[0]) * taps : 0; /* the next block, if pixels follow one another */
    for (int64_t t = 0; t < taps; t++)
        UNROLL for (int v = 0; v < nv; v++) {
            prefetch(in + tap[t] + v * VL, ahead);
            const vf d = load_live(in + tap[t] + v * VL, live) - m[v];
            if (centered) sum[v] += d;
            square[v] = v_fma(d, d, square[v]);
        }
    const double all = (double)count + (double)taps;
    const vf share = v_set1((float)((double)taps / all));
    const vf weight = v_set1((float)((double)count * (double)taps / all));
    UNROLL for (int v = 0; v < nv; v++) {
        if (centered) {
            const vf step = sum[v] * part, delta = step - l[v]; /* step^2 goes, delta^2 comes back in the share of the blocks before */
            square[v] = v_fma(delta * delta, weight, square[v] - sum[v] * step);
            sum_compensated(&m[v], &l[v], delta * share);
        }
        if (count) square[v] += load_live(m2 + v * VL, live);
        store_live(mean + v * VL, m[v], live);
        store_live(low + v * VL, l[v], live);
        store_live(m2 + v * VL, square[v], live);
    }
}

INLINE void moments_columns_of(const bool centered, int64_t n, int64_t taps, const int64_t *tap, const float *in, int64_t count,
                               float *mean, float *low, float *m2) {
    int64_t c = 0;
    for (; c + 4 * VL <= n; c += 4 * VL)
        moments_columns_tile(centered, 4, VL, taps, tap, in + c, count, mean + c, low + c, m2 + c);
    for (; c + VL <= n; c += VL)
        moments_columns_tile(centered, 1, VL, taps, tap, in + c, count, mean + c, low + c, m2 + c);
    if (c < n) moments_columns_tile(centered, 1, n - c, taps, tap, in + c, count, mean + c, low + c, m2 + c);
}

static void moments_columns_run(bool centered, int64_t n, int64_t taps, const int64_t *tap, const float *in, int64_t count,
                                float *mean, float *low, float *m2) {
    if (centered)
        moments_columns_of(true, n, taps, tap, in, count, mean, low, m2);
    else
        moments_columns_of(false, n, taps, tap, in, count, mean, low, m2);
}

/* A number near the middle of the row, which one outlier does not move. */
INLINE float middle_of(const float *x, int64_t n) {
    const float a = x[0], b = x[n / 2], c = x[n - 1], lo = a < b ? a : b, hi = a < b ? b : a;
    return c < lo ? lo : c > hi ? hi : c;
}

/* Sums of x - from and of its square, while what lies `ahead` is on its way. */
INLINE void deviations(const bool centered, int64_t n, const float *x, float from, int64_t ahead, double *sum, double *square) {
    const vf f = v_set1(from);
    vf plain[4], squared[4];
    UNROLL for (int v = 0; v < 4; v++) plain[v] = squared[v] = v_set1(0.0f);
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        UNROLL for (int v = 0; v < 4; v++) {
            prefetch(x + i + v * VL, ahead);
            const vf d = v_load(x + i + v * VL) - f;
            if (centered) plain[v] += d;
            squared[v] = v_fma(d, d, squared[v]);
        }
    for (; i < n; i += VL) {
        const vf d = load_padded(x + i, n - i, from) - f;
        if (centered) plain[0] += d;
        squared[0] = v_fma(d, d, squared[0]);
    }
    *sum = centered ? (double)v_sum((plain[0] + plain[1]) + (plain[2] + plain[3])) : 0.0;
    *square = (double)v_sum((squared[0] + squared[1]) + (squared[2] + squared[3]));
}

INLINE void moments_run_of(const bool centered, int64_t n, const float *x, int64_t count, double *mean, double *m2) {
    if (count == 0) *mean = *m2 = 0.0;
    for (int64_t begin = 0; begin < n; begin += INFOLD_RUN_BLOCK) {
        const int64_t length = n - begin < INFOLD_RUN_BLOCK ? n - begin : INFOLD_RUN_BLOCK;
        const double size = (double)length, share = size / ((double)count + size);
        float from = !centered ? 0.0f : count ? (float)*mean : middle_of(x + begin, length);
        double sum, square, step = 0.0, delta = 0.0, gain;
        for (bool again = centered;; again = false) {
            deviations(centered, length, x + begin, from, length, &sum, &square);
            gain = square;
            if (!centered) break;
            step = sum / size, delta = (double)from - *mean + step;
            gain += delta * delta * ((double)count * share) - sum * step;
            if (!again || !(gain < square * 0.25)) break;
            from += (float)step;
        }
        *mean += delta * share;
        *m2 += gain;
        count += length;
    }
}

static void moments_run_run(bool centered, int64_t n, const float *x, int64_t count, double *mean, double *m2) {
    if (centered)
        moments_run_of(true, n, x, count, mean, m2);
    else
        moments_run_of(false, n, x, count, mean, m2);
}

enum { ROWS_TILE = 4 };

/* Short rows some at a time, a chain of sums each: what one waits for, another fills. */
INLINE void moments_rows_tile(const bool centered, const int rows, int64_t n, const int64_t *tap, const float *in, double *mean, double *m2) {
    float from[ROWS_TILE];
    vf base[ROWS_TILE], plain[ROWS_TILE], squared[ROWS_TILE];
    UNROLL for (int r = 0; r < rows; r++) {
        from[r] = centered ? middle_of(in + tap[r], n) : 0.0f;
        base[r] = v_set1(from[r]);
        plain[r] = squared[r] = v_set1(0.0f);
    }
    int64_t i = 0;
    for (; i + VL <= n; i += VL) UNROLL for (int r = 0; r < rows; r++) {
        const vf d = v_load(in + tap[r] + i) - base[r];
        if (centered) plain[r] += d;
        squared[r] = v_fma(d, d, squared[r]);
    }
    if (i < n) UNROLL for (int r = 0; r < rows; r++) {
        const vf d = load_padded(in + tap[r] + i, n - i, from[r]) - base[r];
        if (centered) plain[r] += d;
        squared[r] = v_fma(d, d, squared[r]);
    }
    float sum[ROWS_TILE], square[ROWS_TILE];
    UNROLL for (int r = 0; r < rows; r++) sum[r] = centered ? v_sum(plain[r]) : 0.0f;
    UNROLL for (int r = 0; r < rows; r++) square[r] = v_sum(squared[r]);
    const double share = 1.0 / (double)n;
    for (int r = 0; r < rows; r++) {
        const double step = (double)sum[r] * share;
        mean[r] = (double)from[r] + step;
        m2[r] = (double)square[r] - (double)sum[r] * step;
        if (centered && m2[r] < (double)square[r] * 0.25) moments_run_of(true, n, in + tap[r], 0, &mean[r], &m2[r]);
    }
}

INLINE void moments_rows_of(const bool centered, int64_t rows, int64_t n, const int64_t *tap, const float *in, double *mean, double *m2) {
    int64_t r = 0;
    for (; r + ROWS_TILE <= rows; r += ROWS_TILE) moments_rows_tile(centered, ROWS_TILE, n, tap + r, in, mean + r, m2 + r);
    for (; r < rows; r++) moments_rows_tile(centered, 1, n, tap + r, in, mean + r, m2 + r);
}

static void moments_rows_run(bool centered, int64_t rows, int64_t n, const int64_t *tap, const float *in, double *mean, double *m2) {
    if (centered)
        moments_rows_of(true, rows, n, tap, in, mean, m2);
    else
        moments_rows_of(false, rows, n, tap, in, mean, m2);
}

/* Plain loops in double, of which compilers make vectors. The part of the mean that one float cannot hold goes into the shift. */
static void settle_run(const infold_norm_how *how, int64_t n, const double *restrict mean, const double *restrict sum,
                       const float *restrict gamma, const float *restrict beta, float *restrict center, float *restrict scale,
                       float *restrict shift, float *restrict spread) {
    enum { BLOCK = 32 };
    const bool bounded = how->form == INFOLD_NORM_BOUNDED, centered = how->form == INFOLD_NORM_CENTERED;
    const double share = 1.0 / how->divisor, offset = how->offset, none = how->power ? 0.0 : INFINITY;
    const double epsilon = how->power == 1 ? 0.0 : how->epsilon;
    for (int64_t c = 0; c < n; c += BLOCK) {
        const int64_t m = n - c < BLOCK ? n - c : BLOCK;
        double d[BLOCK], by[BLOCK];
        for (int64_t i = 0; i < m; i++) d[i] = sum[c + i] * share + epsilon;
        if (how->power != 1)
            for (int64_t i = 0; i < m; i++) d[i] = sqrt(d[i]);
        for (int64_t i = 0; i < m; i++) {
            d[i] += offset;
            by[i] = d[i] == 0.0 ? none : 1.0 / d[i];
        }
        if (how->inverse)
            for (int64_t i = 0; i < m; i++) spread[c + i] = (float)by[i];
        else
            for (int64_t i = 0; i < m; i++) spread[c + i] = (float)(sum[c + i] * share);
        if (bounded)
            for (int64_t i = 0; i < m; i++) by[i] = 1.0;
        const double *from = bounded ? d : mean + c;
        for (int64_t i = 0; i < m; i++) {
            center[c + i] = (float)from[i];
            scale[c + i] = (float)(by[i] * (double)gamma[c + i]);
            shift[c + i] = beta[c + i];
        }
        if (centered)
            for (int64_t i = 0; i < m; i++) shift[c + i] -= (float)(from[i] - (double)(float)from[i]) * scale[c + i];
    }
}

/* One vector of the result. GATED: v is -v log2 e, for sigmoid(v x) = 1 / (1 + 2^(-v x log2 e)). */
INLINE vf normalized(const infold_norm_form form, vf x, vf center, vf scale, vf shift, vf v, vf floor) {
    switch (form) {
    case INFOLD_NORM_GATED: return v_fma(x / (v_set1(1.0f) + v_exp2(v * x)), scale, shift);
    case INFOLD_NORM_BOUNDED: return v_fma(x / v_max(floor, v_fma(v, x, center)), scale, shift);
    default: return v_fma(x - center, scale, shift);
    }
}

static inline vf gate(const infold_norm_form form, vf v) {
    return v * v_set1(form == INFOLD_NORM_GATED ? -1.44269504088896341f : 1.0f);
}

INLINE void put(const bool stream, float *p, vf y, int64_t live) {
    if (stream && live >= VL)
        v_stream(p, y);
    else
        store_live(p, y, live);
}

/* nv vectors of columns under all taps, each with numbers of its own, or one of `live` columns. */
INLINE void normalize_columns(const infold_norm_form form, const bool stream, const int nv, int64_t live, int64_t taps,
                              const int64_t *in_tap, const int64_t *out_tap, const float *in, const infold_norm_by *by, int64_t c,
                              float *out) {
    const vf lo = v_set1(by->lo), hi = v_set1(by->hi);
    const bool gated = form != INFOLD_NORM_CENTERED;
    vf center[4], scale[4], shift[4], v[4], floor[4];
    UNROLL for (int k = 0; k < nv; k++) {
        center[k] = load_live(by->center + c + k * VL, live);
        scale[k] = load_live(by->scale + c + k * VL, live);
        shift[k] = load_live(by->shift + c + k * VL, live);
        v[k] = gated ? gate(form, load_live(by->v + c + k * VL, live)) : lo;
        floor[k] = form == INFOLD_NORM_BOUNDED ? load_live(by->floor + c + k * VL, live) : lo;
    }
    for (int64_t t = 0; t < taps; t++)
        UNROLL for (int k = 0; k < nv; k++) {
            prefetch(in + in_tap[t] + c + k * VL, by->ahead);
            const vf x = load_live(in + in_tap[t] + c + k * VL, live);
            const vf y = normalized(form, x, center[k], scale[k], shift[k], v[k], floor[k]);
            put(stream, out + out_tap[t] + c + k * VL, v_min(hi, v_max(lo, y)), live);
        }
}

/* A row under each tap, with one set of numbers; `gamma`, `beta`: by column, too. */
INLINE void normalize_row(const infold_norm_form form, const bool stream, const bool gamma, const bool beta, int64_t n, int64_t t,
                          const float *x, const infold_norm_by *by, float *out) {
    const vf lo = v_set1(by->lo), hi = v_set1(by->hi);
    const vf center = v_set1(by->center[t]), scale = v_set1(by->scale[t]), shift = v_set1(by->shift[t]);
    const bool gated = form != INFOLD_NORM_CENTERED, bounded = form == INFOLD_NORM_BOUNDED, each = gated && by->each;
    const float *vs = by->v + (each ? 0 : t), *floors = by->floor + (each ? 0 : t), *gammas = by->gamma, *betas = by->beta;
    const int64_t ahead = by->ahead;
    const vf v_row = gated && !each ? gate(form, v_set1(*vs)) : lo, floor_row = bounded && !each ? v_set1(*floors) : lo;
#define VECTOR(live)                                                                                                    \
    do {                                                                                                                \
        prefetch(x + c, ahead);                                                                                         \
        const vf v = each ? gate(form, load_live(vs + c, live)) : v_row;                                                \
        const vf floor = each && bounded ? load_live(floors + c, live) : floor_row;                                     \
        vf y = normalized(form, load_live(x + c, live), center, scale, shift, v, floor);                                \
        if (gamma) y = y * load_live(gammas + c, live);                                                                 \
        if (beta) y = y + load_live(betas + c, live);                                                                   \
        put(stream, out + c, v_min(hi, v_max(lo, y)), live);                                                            \
    } while (0)
    int64_t c = 0;
    for (; c + VL <= n; c += VL) VECTOR(VL);
    if (c < n) VECTOR(n - c);
#undef VECTOR
}

INLINE void normalize_form(const infold_norm_form form, const bool stream, int64_t n, int64_t taps, const int64_t *in_tap,
                           const int64_t *out_tap, const float *in, const infold_norm_by *by, float *out) {
    if (by->row) {
        for (int64_t t = 0; t < taps; t++)
            if (by->gamma && by->beta)
                normalize_row(form, stream, true, true, n, t, in + in_tap[t], by, out + out_tap[t]);
            else if (by->gamma)
                normalize_row(form, stream, true, false, n, t, in + in_tap[t], by, out + out_tap[t]);
            else if (by->beta)
                normalize_row(form, stream, false, true, n, t, in + in_tap[t], by, out + out_tap[t]);
            else
                normalize_row(form, stream, false, false, n, t, in + in_tap[t], by, out + out_tap[t]);
        return;
    }
    int64_t c = 0;
    for (; c + 4 * VL <= n; c += 4 * VL) normalize_columns(form, stream, 4, VL, taps, in_tap, out_tap, in, by, c, out);
    for (; c + VL <= n; c += VL) normalize_columns(form, stream, 1, VL, taps, in_tap, out_tap, in, by, c, out);
    if (c < n) normalize_columns(form, stream, 1, n - c, taps, in_tap, out_tap, in, by, c, out);
}

static void normalize_run(infold_norm_form form, bool stream, int64_t n, int64_t taps, const int64_t *in_tap, const int64_t *out_tap,
                          const float *in, const infold_norm_by *by, float *out) {
#define FORM(form)                                                                                                      \
    case form:                                                                                                          \
        if (stream)                                                                                                     \
            normalize_form(form, true, n, taps, in_tap, out_tap, in, by, out);                                          \
        else                                                                                                            \
            normalize_form(form, false, n, taps, in_tap, out_tap, in, by, out);                                         \
        break
    switch (form) {
        FORM(INFOLD_NORM_CENTERED);
        FORM(INFOLD_NORM_GATED);
        FORM(INFOLD_NORM_BOUNDED);
    }
#undef FORM
}

static void stream_end_run(void) { v_stream_end(); }
