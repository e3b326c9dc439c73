/* Local response normalisation over one pixel's channels: out = x / (bias + scale * sum of neighbours' squares) ^ beta. */

static void lrn_run(int64_t n, const float *x, float *out, int64_t before, int64_t after, float scale, float bias, float beta) {
    enum { BLOCK = 512 };
    float square[BLOCK + 2 * INFOLD_LRN_REACH + VL];
    const vf s = v_set1(scale), b = v_set1(bias), power = v_set1(-beta), one = v_set1(1.0f);
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = n - begin < BLOCK ? n : begin + BLOCK;
        for (int64_t c = begin - before; c < end + after + VL; c++) {
            const float v = c >= 0 && c < n ? x[c] : 0.0f;
            square[c - begin + before] = v * v;
        }
        for (int64_t c = begin; c < end; c += VL) {
            vf sum = v_set1(0.0f);
            for (int64_t k = 0; k <= before + after; k++) sum += v_load(square + c - begin + k);
            const vf d = v_fma(sum, s, b), root = one / v_sqrt(d);
            vf factor = root * v_sqrt(root); /* ^ -0.75, the power that everybody uses */
            if (beta != 0.75f) factor = v_exp(power * v_log(d));
            store_live(out + c, load_live(x + c, end - c) * factor, end - c);
        }
    }
}
