/* Depthwise convolution over channel vectors, m pixels of a row at a time. A run of kw taps slides along the row: each vector of
 * the input is loaded once and meets all its weights, which stay in registers. */

INLINE void depthwise_store(const infold_dw_tile *t, int64_t at, vf x, int64_t live) {
    n_store_either(t->out, t->sums, at, v_min(v_set1(t->hi), v_max(v_set1(t->lo), x)), live);
}

/* Pixels of a tile of one row. A pixel's sum is one chain of multiply-adds: of eight, each would have to begin the moment the last
 * ends. */
enum { DW_ROW = VEC_MR > 6 ? INFOLD_DW_MR : 8 };

/* live: a constant, but for the last vector */
INLINE void depthwise_vector(const infold_dw_tile *t, const int m, const int kw, int64_t c, int64_t live) {
    vf acc[DW_ROW];
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

/* One function for each height and run: how many vectors are alive is known, and they stay in registers. */
#define DEPTHWISE_CASE(m, kw) case m: depthwise_tile(t, m, kw); break;
#define DEPTHWISE_FEW(kw)                                                                                               \
    DEPTHWISE_CASE(1, kw) DEPTHWISE_CASE(2, kw) DEPTHWISE_CASE(3, kw) DEPTHWISE_CASE(4, kw)                             \
    DEPTHWISE_CASE(5, kw) DEPTHWISE_CASE(6, kw) DEPTHWISE_CASE(7, kw)
#if VEC_MR > 6
#define DEPTHWISE_MANY(kw)                                                                                              \
    DEPTHWISE_CASE(8, kw) DEPTHWISE_CASE(9, kw) DEPTHWISE_CASE(10, kw) DEPTHWISE_CASE(11, kw)                           \
    DEPTHWISE_CASE(12, kw) DEPTHWISE_CASE(13, kw) DEPTHWISE_CASE(14, kw) DEPTHWISE_CASE(15, kw)
#else
#define DEPTHWISE_MANY(kw)
#endif
#define DEPTHWISE_DEFINE(kw)                                                                                            \
    static void depthwise_##kw(const infold_dw_tile *t) {                                                               \
        switch (t->m) {                                                                                                 \
            DEPTHWISE_FEW(kw) DEPTHWISE_MANY(kw)                                                                        \
        default: depthwise_tile(t, DW_ROW, kw); break;                                                                  \
        }                                                                                                               \
    }
DEPTHWISE_DEFINE(1) DEPTHWISE_DEFINE(3) DEPTHWISE_DEFINE(5) DEPTHWISE_DEFINE(7)

/* Two rows of output under 3x3 taps: an input row in between serves both. The sums of a single row are too few to hide the latency
 * of the multiply-add, and the input would be read three times instead of twice. */
enum { DW_PAIR = VEC_MR > 6 ? 8 : 4 };

INLINE void depthwise_pair_vector(const infold_dw_tile *t, const int m, int64_t c, int64_t live) {
    vf acc[2][DW_PAIR], above[3], below[3] = {0};
    const vf bias = v_load(t->bias + c);
    UNROLL for (int i = 0; i < m; i++) acc[0][i] = acc[1][i] = bias;
    const float *w = t->w + c;
    const num *row = (const num *)t->in + t->tap[0] + c;
    const int64_t step = t->in_step, down = t->tap[3] - t->tap[0];
    UNROLL for (int y = 0; y < 4; y++, row += down) {
        UNROLL for (int j = 0; j < 3; j++) above[j] = below[j]; /* what the upper output row used last serves the lower one now */
        if (y < 3)
            UNROLL for (int j = 0; j < 3; j++, w += t->w_stride) below[j] = v_load(w);
        const num *x = row;
        UNROLL for (int p = 0; p < m + 2; p++, x += step) {
            const vf xv = n_load(x, live);
            if (y < 2 && p < m) __builtin_prefetch(x + 4 * down, 0, 3); /* the rows that the next two of output will add */
            UNROLL for (int j = 0; j < 3; j++)
                if (p - j >= 0 && p - j < m) {
                    if (y < 3) acc[0][p - j] = v_fma(xv, below[j], acc[0][p - j]);
                    if (y > 0) acc[1][p - j] = v_fma(xv, above[j], acc[1][p - j]);
                }
        }
    }
    UNROLL for (int y = 0; y < 2; y++)
        UNROLL for (int i = 0; i < m; i++) depthwise_store(t, c + y * t->out_row + i * t->out_step, acc[y][i], live);
}

INLINE void depthwise_pair(const infold_dw_tile *t, const int m) {
    const int64_t channels = t->channels;
    int64_t c = 0;
    for (; channels - c >= VL; c += VL) depthwise_pair_vector(t, m, c, VL);
    if (c < channels) depthwise_pair_vector(t, m, c, channels - c);
}

static void depthwise_pairs(const infold_dw_tile *t) {
    switch (t->m) {
    case 1: depthwise_pair(t, 1); break;
    case 2: depthwise_pair(t, 2); break;
    case 3: depthwise_pair(t, 3); break;
#if VEC_MR > 6
    case 4: depthwise_pair(t, 4); break;
    case 5: depthwise_pair(t, 5); break;
    case 6: depthwise_pair(t, 6); break;
    case 7: depthwise_pair(t, 7); break;
#endif
    default: depthwise_pair(t, DW_PAIR); break;
    }
}

static void depthwise_run(const infold_dw_tile *t) {
    if (t->rows == 2) {
        depthwise_pairs(t);
        return;
    }
    switch (t->run) {
    case 3: depthwise_3(t); break;
    case 5: depthwise_5(t); break;
    case 7: depthwise_7(t); break;
    default: depthwise_1(t); break;
    }
}
