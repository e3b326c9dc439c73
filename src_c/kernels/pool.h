/* Pooling over channel vectors; the driver has already clipped the windows to the image. */

enum { POOL_AHEAD = 2048 / sizeof(num) }; /* the next windows of the row: images this large come from afar, from pixel to pixel */

/* nv vectors, of channels or of pixels, whose results do not wait for one another, in_apart and out_apart from one to the next */
#define POOL_VECTORS(nv, at_in, in_apart, at_out, out_apart, live, init, step, finish)                                  \
    {                                                                                                                   \
        vf result[nv];                                                                                                  \
        UNROLL for (int v = 0; v < nv; v++) result[v] = init;                                                           \
        for (int64_t t = 0; t < taps; t++)                                                                              \
            UNROLL for (int v = 0; v < nv; v++) {                                                                       \
                const num *from = (const num *)in + tap[t] + (at_in) + v * (in_apart);                                  \
                __builtin_prefetch(from + POOL_AHEAD, 0, 3);                                                            \
                const vf x = n_load(from, live), acc = result[v];                                                       \
                result[v] = step;                                                                                       \
            }                                                                                                           \
        UNROLL for (int v = 0; v < nv; v++) {                                                                           \
            const vf acc = result[v];                                                                                   \
            n_store((num *)out + (at_out) + v * (out_apart), finish, live);                                             \
        }                                                                                                               \
    }
#define POOL_PIXELS(live, init, step, finish)                                                                           \
    {                                                                                                                   \
        int64_t i = 0;                                                                                                  \
        for (; pixels - i >= 4; i += 4)                                                                                 \
            POOL_VECTORS(4, c + i * in_step, in_step, c + i * out_step, out_step, live, init, step, finish)             \
        for (; i < pixels; i++) POOL_VECTORS(1, c + i * in_step, 0, c + i * out_step, 0, live, init, step, finish)      \
    }
#define POOL_LOOP(init, step, finish)                                                                                   \
    const int64_t wide = channels / (4 * VL) * (4 * VL);                                                                \
    for (int64_t i = 0; i < pixels; i++)                                                                                \
        for (int64_t c = 0; c < wide; c += 4 * VL)                                                                      \
            POOL_VECTORS(4, c + i * in_step, VL, c + i * out_step, VL, VL, init, step, finish)                          \
    int64_t c = wide;                                                                                                   \
    for (; channels - c >= VL; c += VL) POOL_PIXELS(VL, init, step, finish)                                             \
    if (c < channels) POOL_PIXELS(channels - c, init, step, finish)

static void pool_max_run(int64_t channels, int64_t taps, const int64_t *tap, int64_t pixels, const void *in, int64_t in_step,
                         void *out, int64_t out_step) {
    /* NaN in the window stays: v_max returns its second operand, and once acc is NaN it is kept by the select */
    POOL_LOOP(v_set1(-INFINITY), v_sel(v_eq(acc, acc), v_max(acc, x), acc), acc)
}

static void pool_sum_run(int64_t channels, int64_t taps, const int64_t *tap, int64_t pixels, const void *in, int64_t in_step,
                         void *out, int64_t out_step, float scale) {
    POOL_LOOP(v_set1(0.0f), acc + x, acc *v_set1(scale))
}

#ifndef NUM_BF16
static void pool_weighted_run(int64_t channels, int64_t taps, const int64_t *tap, const float *weight, const float *in, float *out) {
    const int64_t pixels = 1, in_step = 0, out_step = 0;
    POOL_LOOP(v_set1(0.0f), v_fma(x, v_set1(weight[t]), acc), acc)
}
#endif
