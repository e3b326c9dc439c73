/* Softmax and its logarithm over one contiguous row, shifted by the row's maximum so that nothing overflows. A NaN anywhere
 * makes the sum NaN and with it the whole row, so the maximum need not look for it. */

static inline float softmax_top(int64_t n, const float *src) {
    vf top[2] = {v_set1(-INFINITY), v_set1(-INFINITY)};
    int64_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        top[0] = v_max(top[0], v_load(src + i));
        top[1] = v_max(top[1], v_load(src + i + VL));
    }
    for (; i < n; i += VL) top[0] = v_max(top[0], load_padded(src + i, n - i, -INFINITY));
    return v_hmax(v_max(top[0], top[1]));
}

/* The sum of exp(src - top), whose terms go to dst unless it is NULL. */
INLINE float softmax_sum(int64_t n, const float *src, float top, float *dst) {
    enum { BLOCK = 2 * VL * INFOLD_REDUCE_BLOCK };
    const vf shift = v_set1(top);
    double total = 0.0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = n - begin < BLOCK ? n : begin + BLOCK;
        vf sum[2] = {v_set1(0.0f), v_set1(0.0f)};
        int64_t i = begin;
        for (; i + 2 * VL <= end; i += 2 * VL)
            UNROLL for (int v = 0; v < 2; v++) {
                const vf e = v_exp(v_load(src + i + v * VL) - shift);
                if (dst) v_store(dst + i + v * VL, e);
                sum[v] += e;
            }
        for (; i < end; i += VL) {
            const vf e = v_exp(load_padded(src + i, end - i, -INFINITY) - shift);
            if (dst) store_live(dst + i, e, end - i);
            sum[1] += e;
        }
        total += (double)v_sum(sum[0] + sum[1]);
    }
    return (float)total;
}

static void softmax_run(int64_t n, const float *src, float *dst, int64_t log) {
    const float top = softmax_top(n, src);
    if (log) {
        const vf shift = v_set1(top), log_sum = v_log(v_set1(softmax_sum(n, src, top, NULL)));
        for (int64_t i = 0; i < n; i += VL) store_live(dst + i, (load_live(src + i, n - i) - shift) - log_sum, n - i);
    } else {
        const vf inverse = v_set1(1.0f / softmax_sum(n, src, top, dst));
        for (int64_t i = 0; i < n; i += VL) store_live(dst + i, load_live(dst + i, n - i) * inverse, n - i);
    }
}
