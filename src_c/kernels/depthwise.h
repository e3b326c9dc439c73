/* Depthwise convolution over channel vectors: each weight vector is loaded once per tap and meets every row of the tile. */

static inline __attribute__((always_inline)) void depthwise_tile(const infold_dw_tile *t, const int m) {
    const vf lo = v_set1(t->lo), hi = v_set1(t->hi);
    const int64_t taps = t->taps, channels = t->channels, w_stride = t->w_stride;
    const float *a[INFOLD_DW_MR];
    UNROLL for (int i = 0; i < m; i++) a[i] = t->a[i];
    for (int64_t c = 0; c < channels; c += VL) {
        vf acc[INFOLD_DW_MR];
        const vf bias = v_load(t->bias + c);
        UNROLL for (int i = 0; i < m; i++) acc[i] = bias;
        const float *w = t->w + c;
        const int64_t live = channels - c;
        if (live >= VL) {
            for (int64_t k = 0; k < taps; k++, w += w_stride) {
                const vf wv = v_load(w);
                const int64_t offset = t->tap[k] + c;
                UNROLL for (int i = 0; i < m; i++) acc[i] = v_fma(v_load(a[i] + offset), wv, acc[i]);
            }
            UNROLL for (int i = 0; i < m; i++) v_store(t->c[i] + c, v_min(hi, v_max(lo, acc[i])));
        } else {
            for (int64_t k = 0; k < taps; k++, w += w_stride) {
                const vf wv = v_load(w);
                const int64_t offset = t->tap[k] + c;
                UNROLL for (int i = 0; i < m; i++) acc[i] = v_fma(v_loadn(a[i] + offset, live), wv, acc[i]);
            }
            UNROLL for (int i = 0; i < m; i++) v_storen(t->c[i] + c, v_min(hi, v_max(lo, acc[i])), live);
        }
    }
}

static void depthwise_run(const infold_dw_tile *t) {
    switch (t->m) {
    case 1: depthwise_tile(t, 1); break;
    case 2: depthwise_tile(t, 2); break;
    case 3: depthwise_tile(t, 3); break;
    case 4: depthwise_tile(t, 4); break;
    case 5: depthwise_tile(t, 5); break;
    default: depthwise_tile(t, 6); break;
    }
}
