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

static void normalize_columns_run(int64_t n, const float *x, const float *mean, const float *scale, const float *shift,
                                  float *out) {
    for (int64_t c = 0; c < n; c += VL) {
        const int64_t live = n - c;
        const vf d = load_live(x + c, live) - load_live(mean + c, live);
        store_live(out + c, v_fma(d, load_live(scale + c, live), load_live(shift + c, live)), live);
    }
}

static void normalize_run_run(int64_t n, const float *x, float mean, float mean_low, float scale, const float *gamma,
                              const float *beta, float *out) {
    const vf m = v_set1(mean), low = v_set1(mean_low), s = v_set1(scale);
    for (int64_t c = 0; c < n; c += VL) {
        const int64_t live = n - c;
        vf y = ((load_live(x + c, live) - m) - low) * s;
        if (gamma) y = y * load_live(gamma + c, live);
        if (beta) y = y + load_live(beta + c, live);
        store_live(out + c, y, live);
    }
}
