/* Pooling over channel vectors; the driver has already clipped the window to the image. */

#define POOL_LOOP(init, step, finish)                                                                                   \
    for (int64_t c = 0; c < channels; c += VL) {                                                                        \
        const int64_t live = channels - c;                                                                              \
        const float *p = in + c;                                                                                        \
        vf acc = init;                                                                                                  \
        if (live >= VL) {                                                                                               \
            for (int64_t t = 0; t < taps; t++) {                                                                        \
                const vf x = v_load(p + tap[t]);                                                                        \
                acc = step;                                                                                             \
            }                                                                                                           \
            v_store(out + c, finish);                                                                                   \
        } else {                                                                                                        \
            for (int64_t t = 0; t < taps; t++) {                                                                        \
                const vf x = v_loadn(p + tap[t], live);                                                                 \
                acc = step;                                                                                             \
            }                                                                                                           \
            v_storen(out + c, finish, live);                                                                            \
        }                                                                                                               \
    }

static void pool_max_run(int64_t channels, int64_t taps, const int64_t *tap, const float *in, float *out) {
    /* NaN in the window stays: v_max returns its second operand, and once acc is NaN it is kept by the select */
    POOL_LOOP(v_set1(-INFINITY), v_sel(v_eq(acc, acc), v_max(acc, x), acc), acc)
}

static void pool_sum_run(int64_t channels, int64_t taps, const int64_t *tap, const float *in, float scale, float *out) {
    POOL_LOOP(v_set1(0.0f), acc + x, acc *v_set1(scale))
}

static void pool_weighted_run(int64_t channels, int64_t taps, const int64_t *tap, const float *weight, const float *in, float *out) {
    POOL_LOOP(v_set1(0.0f), v_fma(x, v_set1(weight[t]), acc), acc)
}
