/* Pooling over channel vectors; the driver has already clipped the window to the image. */

enum { POOL_AHEAD = 2048 / sizeof(num) }; /* the next windows of the row: images this large come from afar, from pixel to pixel */

/* nv vectors of channels, whose results do not wait for one another; live: of the last */
#define POOL_VECTORS(nv, live, init, step, finish)                                                                      \
    {                                                                                                                   \
        vf result[nv];                                                                                                  \
        UNROLL for (int v = 0; v < nv; v++) result[v] = init;                                                           \
        for (int64_t t = 0; t < taps; t++)                                                                              \
            UNROLL for (int v = 0; v < nv; v++) {                                                                       \
                const num *from = (const num *)in + tap[t] + c + v * VL;                                                \
                __builtin_prefetch(from + POOL_AHEAD, 0, 3);                                                            \
                const vf x = n_load(from, live), acc = result[v];                                                       \
                result[v] = step;                                                                                       \
            }                                                                                                           \
        UNROLL for (int v = 0; v < nv; v++) {                                                                           \
            const vf acc = result[v];                                                                                   \
            n_store((num *)out + c + v * VL, finish, live);                                                             \
        }                                                                                                               \
    }
#define POOL_LOOP(init, step, finish)                                                                                   \
    int64_t c = 0;                                                                                                      \
    for (; channels - c >= 4 * VL; c += 4 * VL) POOL_VECTORS(4, VL, init, step, finish)                                 \
    for (; channels - c >= VL; c += VL) POOL_VECTORS(1, VL, init, step, finish)                                         \
    if (c < channels) POOL_VECTORS(1, channels - c, init, step, finish)

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
