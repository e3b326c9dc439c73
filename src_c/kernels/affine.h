/* The per-channel affine map with a clamp. */

static void affine_run(int64_t rows, int64_t n, const void *in, int64_t x_row, const float *scale, const float *shift,
                       int64_t s_row, int64_t s_elem, float lo, float hi, void *to, int64_t out_row) {
    const vf low = v_set1(lo), high = v_set1(hi);
    const num *x = in;
    num *out = to;
#define AFFINE(i, live, s, h) n_store(out + i, v_min(high, v_max(low, v_fma(n_load(x + i, live), s, h))), live)
    for (int64_t r = 0; r < rows; r++, x += x_row, scale += s_row, shift += s_row, out += out_row) {
        int64_t i = 0;
        if (s_elem) {
            for (; i + VL <= n; i += VL) AFFINE(i, VL, v_load(scale + i), v_load(shift + i));
            if (i < n) AFFINE(i, n - i, v_loadn(scale + i, n - i), v_loadn(shift + i, n - i));
        } else {
            const vf s = v_set1(scale[0]), h = v_set1(shift[0]);
            for (; i + VL <= n; i += VL) AFFINE(i, VL, s, h);
            if (i < n) AFFINE(i, n - i, s, h);
        }
    }
#undef AFFINE
}
