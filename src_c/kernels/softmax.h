/* Softmax and its logarithm over one contiguous row, shifted by the row's maximum so that nothing overflows. */

static void softmax_run(int64_t n, const float *src, float *dst, int64_t log) {
    const float top = (float)reduce_run_kind(INFOLD_REDUCE_MAX, n, src, 0.0f);
    const vf shift = v_set1(top);
    if (log) {
        const vf sum = v_set1((float)reduce_run_kind(INFOLD_REDUCE_LOG_SUM_EXP, n, src, top));
        const vf log_sum = v_log(sum);
        for (int64_t i = 0; i < n; i += VL) store_live(dst + i, (load_live(src + i, n - i) - shift) - log_sum, n - i);
        return;
    }
    for (int64_t i = 0; i < n; i += VL) store_live(dst + i, v_exp(load_live(src + i, n - i) - shift), n - i);
    const vf inverse = v_set1((float)(1.0 / reduce_run_kind(INFOLD_REDUCE_SUM, n, dst, 0.0f)));
    for (int64_t i = 0; i < n; i += VL) store_live(dst + i, load_live(dst + i, n - i) * inverse, n - i);
}
