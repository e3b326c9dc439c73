/* The yardstick: multiply-adds on registers alone, in as many independent chains as the micro-kernel has accumulators. */

static float fma_peak_run(int64_t iterations) {
    vf acc[2 * VEC_MR];
    const vf x = v_set1(1.000001f), y = v_set1(-1e-9f);
    UNROLL for (int i = 0; i < 2 * VEC_MR; i++) acc[i] = v_set1((float)i);
    for (int64_t n = 0; n < iterations; n++) UNROLL for (int i = 0; i < 2 * VEC_MR; i++) acc[i] = v_fma(acc[i], x, y);
    vf sum = acc[0];
    UNROLL for (int i = 1; i < 2 * VEC_MR; i++) sum += acc[i];
    return v_sum(sum);
}
