/* Depthwise convolution over channel vectors, m pixels of a row at a time. A run of kw taps slides along the row: each vector of
 * the input is loaded once and meets all its weights, which stay in registers. */

INLINE void depthwise_store(const infold_dw_tile *t, int64_t at, vf x, int64_t live) {
    n_store_either(t->out, t->sums, at, v_min(v_set1(t->hi), v_max(v_set1(t->lo), x)), live);
}

/* Pixels of a tile of one row. A pixel's sum is one chain of multiply-adds: of eight, each would have to begin the moment the last
 * ends. */
enum { DW_PIXELS = VEC_MR > 6 ? INFOLD_DW_MR : 8 };

/* live: a constant, but for the last vector */
INLINE void depthwise_vector(const infold_dw_tile *t, const int m, const int kw, int64_t c, int64_t live) {
    vf acc[DW_PIXELS];
    const vf bias = v_load(t->bias + c);
    UNROLL for (int i = 0; i < m; i++) acc[i] = bias;
    const float *w = t->w + c;
    const int64_t taps = t->taps, w_stride = t->w_stride, step = t->in_step;
    for (int64_t k = 0; k < taps; k += kw) {
        const num *x = (const num *)t->in + t->tap[k] + c;
        vf wv[7];
        UNROLL for (int j = 0; j < kw; j++, w += w_stride) wv[j] = v_load(w);
        UNROLL for (int p = 0; p < m + kw - 1; p++, x += step) {
            const vf xv = n_load(x, live);
            UNROLL for (int j = 0; j < kw; j++)
                if (p - j >= 0 && p - j < m) acc[p - j] = v_fma(xv, wv[j], acc[p - j]);
        }
    }
    UNROLL for (int i = 0; i < m; i++) depthwise_store(t, c + i * t->out_step, acc[i], live);
}

INLINE void depthwise_tile(const infold_dw_tile *t, const int m, const int kw) {
    const int64_t channels = t->channels;
    int64_t c = 0;
    for (; channels - c >= VL; c += VL) depthwise_vector(t, m, kw, c, VL);
    if (c < channels) depthwise_vector(t, m, kw, c, channels - c);
}

/* One function for each height and run: how many vectors are alive is known, and they stay in registers. The greatest height is the
 * default. */
#define DW_CASE(tile, m, kw) case m: tile(t, m, kw); break;
#define DW_TO_3(tile, kw) DW_CASE(tile, 1, kw) DW_CASE(tile, 2, kw) DW_CASE(tile, 3, kw)
#define DW_TO_7(tile, kw)                                                                                               \
    DW_TO_3(tile, kw) DW_CASE(tile, 4, kw) DW_CASE(tile, 5, kw) DW_CASE(tile, 6, kw) DW_CASE(tile, 7, kw)
#define DW_TO_11(tile, kw)                                                                                              \
    DW_TO_7(tile, kw) DW_CASE(tile, 8, kw) DW_CASE(tile, 9, kw) DW_CASE(tile, 10, kw) DW_CASE(tile, 11, kw)
#define DW_TO_15(tile, kw)                                                                                              \
    DW_TO_11(tile, kw) DW_CASE(tile, 12, kw) DW_CASE(tile, 13, kw) DW_CASE(tile, 14, kw) DW_CASE(tile, 15, kw)
#if VEC_MR > 6
#define DEPTHWISE_CASES DW_TO_15
#define GROUPED_CASES DW_TO_11
#else
#define DEPTHWISE_CASES DW_TO_7
#define GROUPED_CASES DW_TO_3
#endif
#define DW_DEFINE(name, tile, cases, most, kw)                                                                          \
    static void name##_##kw(const infold_dw_tile *t) {                                                                  \
        switch (t->m) {                                                                                                 \
            cases(tile, kw)                                                                                             \
        default: tile(t, most, kw); break;                                                                              \
        }                                                                                                               \
    }
#define DEPTHWISE_DEFINE(kw) DW_DEFINE(depthwise, depthwise_tile, DEPTHWISE_CASES, DW_PIXELS, kw)
DEPTHWISE_DEFINE(1) DEPTHWISE_DEFINE(3) DEPTHWISE_DEFINE(5) DEPTHWISE_DEFINE(7)

/* Up to DW_ROWS rows of output under a 3x3 window that moves by S pixels, along the row: each vector of the input is loaded once for all
 * its outputs, and all weights stay in registers. */
enum { DW_ROWS = VEC_MR > 6 ? 4 : 2 };

/* A column of the input under all R rows of windows: column 0 of those of `next`, 1 of `here`, 2 of `last`, where they are not NULL. */
INLINE void depthwise_column(const int R, const int S, const num *x, int64_t down, const vf *w, vf *next, vf *here, vf *last,
                             int64_t live) {
    UNROLL for (int y = 0; y < (R - 1) * S + 3; y++) {
        const vf xv = n_load(x + y * down, live);
        UNROLL for (int r = 0; r < R; r++) {
            const int i = 3 * (y - r * S);
            if (i < 0 || i > 6) continue;
            if (last) last[r] = v_fma(xv, w[i + 2], last[r]);
            if (here) here[r] = v_fma(xv, w[i + 1], here[r]);
            if (next) next[r] = v_fma(xv, w[i], next[r]);
        }
    }
}

INLINE void depthwise_store_rows(const infold_dw_tile *t, const int R, int64_t at, const vf *sum, int64_t live) {
    UNROLL for (int r = 0; r < R; r++) depthwise_store(t, at + r * t->out_row, sum[r], live);
}

INLINE void depthwise_window_vector(const infold_dw_tile *t, const int R, const int S, int64_t c, int64_t live) {
    vf w[9], next[DW_ROWS], here[DW_ROWS], last[DW_ROWS];
    UNROLL for (int k = 0; k < 9; k++) w[k] = v_load(t->w + c + k * t->w_stride);
    const vf bias = v_load(t->bias + c);
    const num *x = (const num *)t->in + t->tap[0] + c;
    const int64_t step = t->tap[1] - t->tap[0], down = t->tap[3] - t->tap[0], m = t->m;
    UNROLL for (int r = 0; r < R; r++) here[r] = last[r] = bias;
    depthwise_column(R, S, x, down, w, here, NULL, NULL, live);
    x += step;
    if (S == 1) {
        for (int64_t p = 1; p < m; p++, x += step) {
            UNROLL for (int r = 0; r < R; r++) next[r] = bias;
            depthwise_column(R, S, x, down, w, next, here, last, live);
            if (p > 1) depthwise_store_rows(t, R, c + (p - 2) * t->out_step, last, live);
            UNROLL for (int r = 0; r < R; r++) last[r] = here[r], here[r] = next[r];
        }
        depthwise_column(R, S, x, down, w, NULL, here, last, live);
        if (m > 1) depthwise_store_rows(t, R, c + (m - 2) * t->out_step, last, live);
        depthwise_column(R, S, x + step, down, w, NULL, NULL, here, live);
    } else {
        for (int64_t p = 1; p < m; p++, x += 2 * step) {
            UNROLL for (int r = 0; r < R; r++) next[r] = bias;
            depthwise_column(R, S, x, down, w, NULL, here, NULL, live);
            depthwise_column(R, S, x + step, down, w, next, NULL, here, live);
            depthwise_store_rows(t, R, c + (p - 1) * t->out_step, here, live);
            UNROLL for (int r = 0; r < R; r++) here[r] = next[r];
        }
        depthwise_column(R, S, x, down, w, NULL, here, NULL, live);
        depthwise_column(R, S, x + step, down, w, NULL, NULL, here, live);
    }
    depthwise_store_rows(t, R, c + (m - 1) * t->out_step, here, live);
}

INLINE void depthwise_window(const infold_dw_tile *t, const int R, const int S) {
    const int64_t channels = t->channels;
    int64_t c = 0;
    for (; channels - c >= VL; c += VL) depthwise_window_vector(t, R, S, c, VL);
    if (c < channels) depthwise_window_vector(t, R, S, c, channels - c);
}

INLINE void depthwise_windows(const infold_dw_tile *t, const int S) {
    switch (t->rows) {
    case 1: depthwise_window(t, 1, S); break;
#if VEC_MR > 6
    case 3: depthwise_window(t, 3, S); break;
    case 4: depthwise_window(t, 4, S); break;
#endif
    default: depthwise_window(t, 2, S); break;
    }
}

/* Groups of a few channels: each channel of a vector meets those of its group, one after the other, brought into its lane. That is
 * no load, as a broadcast is, and serves kw sums. */
enum { DW_GROUPED = VEC_MR > 6 ? 12 : 4 };
static const union {
    int32_t i[16];
    float f[16];
} depthwise_lanes = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

INLINE void grouped_vector(const infold_dw_tile *t, const int m, const int kw, int64_t c, int64_t live) {
    vf sum[DW_GROUPED], acc[DW_GROUPED];
    const vf bias = v_load(t->bias + c);
    UNROLL for (int i = 0; i < m; i++) sum[i] = bias, acc[i] = v_set1(0.0f);
    const vi first = vi_and(v_bits(v_load(depthwise_lanes.f)), vi_set1(-(int32_t)t->group));
    const float *w = t->w + c;
    const int64_t taps = t->taps, group = t->group, w_stride = t->w_stride, step = t->in_step;
    for (int64_t k = 0, chained = 0; k < taps; k += kw, chained += kw * group) {
        if (chained + kw * group > t->chunk) {
            UNROLL for (int i = 0; i < m; i++) sum[i] += acc[i], acc[i] = v_set1(0.0f);
            chained = 0;
        }
        for (int64_t g = 0; g < group; g++) {
            const vi lane = vi_add(first, vi_set1((int32_t)g));
            const num *x = (const num *)t->in + t->tap[k] + c;
            vf wv[3];
            UNROLL for (int j = 0; j < kw; j++, w += w_stride) wv[j] = v_load(w);
            UNROLL for (int p = 0; p < m + kw - 1; p++, x += step) {
                const vf xv = v_permute(n_load(x, live), lane);
                UNROLL for (int j = 0; j < kw; j++)
                    if (p - j >= 0 && p - j < m) acc[p - j] = v_fma(xv, wv[j], acc[p - j]);
            }
        }
    }
    UNROLL for (int i = 0; i < m; i++) depthwise_store(t, c + i * t->out_step, sum[i] + acc[i], live);
}

INLINE void grouped_tile(const infold_dw_tile *t, const int m, const int kw) {
    const int64_t channels = t->channels;
    int64_t c = 0;
    for (; channels - c >= VL; c += VL) grouped_vector(t, m, kw, c, VL);
    if (c < channels) grouped_vector(t, m, kw, c, channels - c);
}

#define GROUPED_DEFINE(kw) DW_DEFINE(grouped, grouped_tile, GROUPED_CASES, DW_GROUPED, kw)
GROUPED_DEFINE(1) GROUPED_DEFINE(3)

static void depthwise_run(const infold_dw_tile *t) {
    if (t->group > 1) {
        (t->run == 3 ? grouped_3 : grouped_1)(t);
        return;
    }
    if (t->window) {
        if (t->window == 1) depthwise_windows(t, 1);
        else depthwise_windows(t, 2);
        return;
    }
    switch (t->run) {
    case 3: depthwise_3(t); break;
    case 5: depthwise_5(t); break;
    case 7: depthwise_7(t); break;
    default: depthwise_1(t); break;
    }
}
