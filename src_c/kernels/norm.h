/* Moments and normalisation. Each block is read twice while it is in the first-level cache: mean, then squared deviations.
 * Blocks are merged as by Chan, Golub and LeVeque (1979): one pass of memory, the accuracy of two. */

/* x + ahead may be anywhere: a guess. */
INLINE void prefetch(const float *x, int64_t ahead) {
    __builtin_prefetch((const void *)((uintptr_t)x + (uintptr_t)ahead * sizeof(float)));
}

INLINE void moments_columns_tile(const int nv, int64_t live, int64_t taps, const int64_t *tap, const float *in, int64_t count,
                                 float *mean, float *low, float *m2) {
    const vf size = v_set1((float)taps), zero = v_set1(0.0f);
    vf first[4], offset[4], square[4];
    UNROLL for (int v = 0; v < nv; v++) {
        first[v] = load_live(in + tap[0] + v * VL, live); /* summing differences keeps the digits of a mean far from zero */
        offset[v] = square[v] = zero;
    }
    for (int64_t t = 1; t < taps; t++)
        UNROLL for (int v = 0; v < nv; v++) offset[v] += load_live(in + tap[t] + v * VL, live) - first[v];
    vf middle[4];
    UNROLL for (int v = 0; v < nv; v++) {
        offset[v] = offset[v] / size;
        middle[v] = first[v] + offset[v];
    }
    const int64_t ahead = taps > 1 ? (tap[1] - tap[0]) * taps : 0; /* the next block, if pixels follow one another */
    for (int64_t t = 0; t < taps; t++)
        UNROLL for (int v = 0; v < nv; v++) {
            prefetch(in + tap[t] + v * VL, ahead);
            const vf d = load_live(in + tap[t] + v * VL, live) - middle[v];
            square[v] = v_fma(d, d, square[v]);
        }
    const double all = (double)count + (double)taps;
    const vf share = v_set1((float)((double)taps / all));
    const vf weight = v_set1((float)((double)count * (double)taps / all));
    UNROLL for (int v = 0; v < nv; v++) {
        vf m = first[v], l = zero, delta = offset[v];
        if (count) {
            m = load_live(mean + v * VL, live);
            l = load_live(low + v * VL, live);
            delta = ((first[v] - m) - l) + offset[v];
            square[v] = v_fma(delta * delta, weight, square[v] + load_live(m2 + v * VL, live));
            delta = delta * share;
        }
        sum_compensated(&m, &l, delta);
        store_live(mean + v * VL, m, live);
        store_live(low + v * VL, l, live);
        store_live(m2 + v * VL, square[v], live);
    }
}

static void moments_columns_run(int64_t n, int64_t taps, const int64_t *tap, const float *in, int64_t count, float *mean,
                                float *low, float *m2) {
    int64_t c = 0;
    for (; c + 4 * VL <= n; c += 4 * VL)
        moments_columns_tile(4, VL, taps, tap, in + c, count, mean + c, low + c, m2 + c);
    for (; c + VL <= n; c += VL) moments_columns_tile(1, VL, taps, tap, in + c, count, mean + c, low + c, m2 + c);
    if (c < n) moments_columns_tile(1, n - c, taps, tap, in + c, count, mean + c, low + c, m2 + c);
}

/* Sum of x - from, or of its square, while what lies `ahead` is on its way. */
INLINE double deviations(const bool squared, int64_t n, const float *x, float from, int64_t ahead) {
    const vf f = v_set1(from), one = v_set1(1.0f);
    vf part[4];
    UNROLL for (int v = 0; v < 4; v++) part[v] = v_set1(0.0f);
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        UNROLL for (int v = 0; v < 4; v++) {
            if (squared) prefetch(x + i + v * VL, ahead);
            const vf d = v_load(x + i + v * VL) - f;
            part[v] = v_fma(d, squared ? d : one, part[v]);
        }
    for (; i < n; i += VL) {
        const vf d = load_padded(x + i, n - i, from) - f;
        part[0] = v_fma(d, squared ? d : one, part[0]);
    }
    return (double)v_sum((part[0] + part[1]) + (part[2] + part[3]));
}

static void moments_run_run(int64_t n, const float *x, int64_t count, double *mean, double *m2) {
    enum { BLOCK = 2048 };
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t size = n - begin < BLOCK ? n - begin : BLOCK;
        const float *p = x + begin;
        const double middle = (double)p[0] + deviations(false, size, p, p[0], 0) / (double)size;
        const double slip = middle - (double)(float)middle;
        const double square = deviations(true, size, p, (float)middle, BLOCK) - slip * slip * (double)size;
        if (count == 0) {
            *mean = middle;
            *m2 = square;
        } else {
            const double delta = middle - *mean, share = (double)size / ((double)count + (double)size);
            *mean += delta * share;
            *m2 += square + delta * delta * ((double)count * share);
        }
        count += size;
    }
}

/* Short rows four at a time, a chain of sums each: what one waits for, another fills. */
static void moments_rows_run(int64_t rows, int64_t n, const int64_t *tap, const float *in, double *mean, double *m2) {
    const double share = 1.0 / (double)n;
    for (int64_t row = 0; row < rows; row += 4) {
        const float *x[4];
        vf from[4], sum[4];
        UNROLL for (int r = 0; r < 4; r++) {
            x[r] = in + tap[row + r < rows ? row + r : row];
            from[r] = v_set1(x[r][0]);
            sum[r] = v_set1(0.0f);
        }
        int64_t i = 0;
        for (; i + VL <= n; i += VL) UNROLL for (int r = 0; r < 4; r++) sum[r] += v_load(x[r] + i) - from[r];
        if (i < n) UNROLL for (int r = 0; r < 4; r++) sum[r] += load_padded(x[r] + i, n - i, x[r][0]) - from[r];
        double middle[4];
        UNROLL for (int r = 0; r < 4; r++) {
            middle[r] = (double)x[r][0] + (double)v_sum(sum[r]) * share;
            from[r] = v_set1((float)middle[r]);
            sum[r] = v_set1(0.0f);
        }
        for (i = 0; i + VL <= n; i += VL) UNROLL for (int r = 0; r < 4; r++) {
            const vf d = v_load(x[r] + i) - from[r];
            sum[r] = v_fma(d, d, sum[r]);
        }
        if (i < n) UNROLL for (int r = 0; r < 4; r++) {
            const vf d = load_padded(x[r] + i, n - i, (float)middle[r]) - from[r];
            sum[r] = v_fma(d, d, sum[r]);
        }
        UNROLL for (int r = 0; r < 4; r++) {
            if (row + r >= rows) break;
            const double slip = middle[r] - (double)(float)middle[r];
            mean[row + r] = middle[r];
            m2[row + r] = (double)v_sum(sum[r]) - slip * slip * (double)n;
        }
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
            const vf x = load_live(in + in_tap[t] + c + k * VL, live);
            const vf y = normalized(form, x, center[k], scale[k], shift[k], v[k], floor[k]);
            put(stream, out + out_tap[t] + c + k * VL, v_min(hi, v_max(lo, y)), live);
        }
}

/* A row under each tap, with one set of numbers. */
INLINE void normalize_row(const infold_norm_form form, const bool stream, const bool affine, int64_t n, int64_t t, const float *x,
                          const infold_norm_by *by, float *out) {
    const infold_norm_by b = *by;
    const vf lo = v_set1(b.lo), hi = v_set1(b.hi), one = v_set1(1.0f), zero = v_set1(0.0f);
    const vf center = v_set1(b.center[t]), scale = v_set1(b.scale[t]), shift = v_set1(b.shift[t]);
    const bool gated = form != INFOLD_NORM_CENTERED, bounded = form == INFOLD_NORM_BOUNDED;
    const vf v_row = gated && !b.each ? gate(form, v_set1(b.v[t])) : zero, floor_row = bounded && !b.each ? v_set1(b.floor[t]) : zero;
    for (int64_t c = 0; c < n; c += VL) {
        const int64_t live = n - c;
        const vf v = gated && b.each ? gate(form, load_live(b.v + c, live)) : v_row;
        const vf floor = bounded && b.each ? load_live(b.floor + c, live) : floor_row;
        vf y = normalized(form, load_live(x + c, live), center, scale, shift, v, floor);
        if (affine) {
            const vf gamma = b.gamma ? load_live(b.gamma + c, live) : one, beta = b.beta ? load_live(b.beta + c, live) : zero;
            y = v_fma(y, gamma, beta);
        }
        put(stream, out + c, v_min(hi, v_max(lo, y)), live);
    }
}

INLINE void normalize_form(const infold_norm_form form, const bool stream, int64_t n, int64_t taps, const int64_t *in_tap,
                           const int64_t *out_tap, const float *in, const infold_norm_by *by, float *out) {
    if (by->row) {
        for (int64_t t = 0; t < taps; t++)
            if (by->gamma || by->beta)
                normalize_row(form, stream, true, n, t, in + in_tap[t], by, out + out_tap[t]);
            else
                normalize_row(form, stream, false, n, t, in + in_tap[t], by, out + out_tap[t]);
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
        if (stream) {                                                                                                   \
            normalize_form(form, true, n, taps, in_tap, out_tap, in, by, out);                                          \
            v_stream_end();                                                                                             \
        } else {                                                                                                        \
            normalize_form(form, false, n, taps, in_tap, out_tap, in, by, out);                                         \
        }                                                                                                               \
        break
    switch (form) {
        FORM(INFOLD_NORM_CENTERED);
        FORM(INFOLD_NORM_GATED);
        FORM(INFOLD_NORM_BOUNDED);
    }
#undef FORM
}
