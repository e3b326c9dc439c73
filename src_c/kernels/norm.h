/* Moments and normalisation. Each block is read twice while it is in the first-level cache: mean, then squared deviations.
 * Blocks are merged as by Chan, Golub and LeVeque (1979): one pass of memory, the accuracy of two. */

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
    for (int64_t t = 0; t < taps; t++)
        UNROLL for (int v = 0; v < nv; v++) {
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

/* Sum of x - from, or of its square. */
INLINE double deviations(const bool squared, int64_t n, const float *x, float from) {
    const vf f = v_set1(from), one = v_set1(1.0f);
    vf part[4];
    UNROLL for (int v = 0; v < 4; v++) part[v] = v_set1(0.0f);
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        UNROLL for (int v = 0; v < 4; v++) {
            const vf d = v_load(x + i + v * VL) - f;
            part[v] = v_fma(d, squared ? d : one, part[v]);
        }
    for (; i + VL <= n; i += VL) {
        const vf d = v_load(x + i) - f;
        part[0] = v_fma(d, squared ? d : one, part[0]);
    }
    double sum = (double)v_sum((part[0] + part[1]) + (part[2] + part[3]));
    for (; i < n; i++) {
        const double d = (double)x[i] - (double)from;
        sum += squared ? d * d : d;
    }
    return sum;
}

static void moments_run_run(int64_t n, const float *x, int64_t count, double *mean, double *m2) {
    enum { BLOCK = 2048 };
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t size = n - begin < BLOCK ? n - begin : BLOCK;
        const float *p = x + begin;
        const double middle = (double)p[0] + deviations(false, size, p, p[0]) / (double)size;
        const double slip = middle - (double)(float)middle;
        const double square = deviations(true, size, p, (float)middle) - slip * slip * (double)size;
        const double all = (double)count + (double)size, delta = middle - *mean;
        *m2 = count ? *m2 + square + delta * delta * ((double)count * (double)size / all) : square;
        *mean = count ? *mean + delta * ((double)size / all) : middle;
        count += size;
    }
}

/* One vector of the result. `each`: center, scale and shift differ by element. */
INLINE vf normalized(const infold_norm_form form, const bool each, const infold_norm_by *by, vf x, int64_t c, int64_t live) {
    const vf center = each ? load_live(by->center + c, live) : v_set1(by->center[0]);
    const vf scale = each ? load_live(by->scale + c, live) : v_set1(by->scale[0]);
    const vf shift = each ? load_live(by->shift + c, live) : v_set1(by->shift[0]);
    if (form == INFOLD_NORM_CENTERED) return v_fma(x - center, scale, shift);
    const vf v = by->v_each ? load_live(by->v + c, live) : v_set1(by->v[0]);
    if (form == INFOLD_NORM_GATED) return v_fma(x * v_sigmoid(v * x), scale, shift);
    const vf floor = by->v_each ? load_live(by->floor + c, live) : v_set1(by->floor[0]);
    return v_fma(x / v_max(floor, v_fma(v, x, center)), scale, shift);
}

INLINE vf normalized_affine(const infold_norm_form form, const bool each, const infold_norm_by *by, vf x, int64_t c, int64_t live) {
    vf y = normalized(form, each, by, x, c, live);
    if (by->gamma) y = y * load_live(by->gamma + c, live);
    if (by->beta) y = y + load_live(by->beta + c, live);
    return v_min(v_set1(by->hi), v_max(v_set1(by->lo), y));
}

INLINE void normalize_form(const infold_norm_form form, const bool each, int64_t n, int64_t taps, const int64_t *in_tap,
                           const int64_t *out_tap, const float *in, const infold_norm_by *by, float *out) {
    for (int64_t t = 0; t < taps; t++) {
        const float *x = in + in_tap[t];
        float *y = out + out_tap[t];
        int64_t c = 0;
        for (; c + VL <= n; c += VL) v_store(y + c, normalized_affine(form, each, by, v_load(x + c), c, VL));
        if (c < n) v_storen(y + c, normalized_affine(form, each, by, v_loadn(x + c, n - c), c, n - c), n - c);
    }
}

static void normalize_run(infold_norm_form form, bool each, int64_t n, int64_t taps, const int64_t *in_tap, const int64_t *out_tap,
                          const float *in, const infold_norm_by *by, float *out) {
#define FORM(form, each) normalize_form(form, each, n, taps, in_tap, out_tap, in, by, out)
    switch (form) {
    case INFOLD_NORM_CENTERED: each ? FORM(INFOLD_NORM_CENTERED, true) : FORM(INFOLD_NORM_CENTERED, false); break;
    case INFOLD_NORM_GATED: each ? FORM(INFOLD_NORM_GATED, true) : FORM(INFOLD_NORM_GATED, false); break;
    case INFOLD_NORM_BOUNDED: each ? FORM(INFOLD_NORM_BOUNDED, true) : FORM(INFOLD_NORM_BOUNDED, false); break;
    }
#undef FORM
}
