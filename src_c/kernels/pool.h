/* Pooling over channel vectors; the driver has already clipped the window to the image. */

#define POOL_VECTOR(live, init, step, finish)                                                                           \
    {                                                                                                                   \
        vf acc = init;                                                                                                  \
        for (int64_t t = 0; t < taps; t++) {                                                                            \
            const vf x = n_load((const num *)in + tap[t] + c, live);                                                    \
            acc = step;                                                                                                 \
        }                                                                                                               \
        n_store((num *)out + c, finish, live);                                                                          \
    }
#define POOL_LOOP(init, step, finish)                                                                                   \
    int64_t c = 0;                                                                                                      \
    for (; channels - c >= VL; c += VL) POOL_VECTOR(VL, init, step, finish)                                             \
    if (c < channels) POOL_VECTOR(channels - c, init, step, finish)

static void pool_max_run(int64_t channels, int64_t taps, const int64_t *tap, const void *in, void *out) {
    /* NaN in the window stays: v_max returns its second operand, and once acc is NaN it is kept by the select */
    POOL_LOOP(v_set1(-INFINITY), v_sel(v_eq(acc, acc), v_max(acc, x), acc), acc)
}

static void pool_sum_run(int64_t channels, int64_t taps, const int64_t *tap, const void *in, float scale, void *out) {
    POOL_LOOP(v_set1(0.0f), acc + x, acc *v_set1(scale))
}

#ifndef NUM_BF16
static void pool_weighted_run(int64_t channels, int64_t taps, const int64_t *tap, const float *weight, const float *in, float *out) {
    POOL_LOOP(v_set1(0.0f), v_fma(x, v_set1(weight[t]), acc), acc)
}
#endif
