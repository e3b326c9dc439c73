/* Activations and other unary functions over rows, each contiguous: one loop for each function, which is chosen outside it. */

#define ACT_LOOP(expr)                                                                                                  \
    for (; rows > 0; rows--, src += src_row, dst += dst_row) {                                                          \
        int64_t i = 0;                                                                                                  \
        for (; i + VL <= n; i += VL) {                                                                                  \
            const vf x = v_load(src + i);                                                                               \
            n_store(dst + i, (expr), VL);                                                                               \
        }                                                                                                               \
        if (i < n) {                                                                                                    \
            const vf x = v_loadn(src + i, n - i);                                                                       \
            n_store(dst + i, (expr), n - i);                                                                            \
        }                                                                                                               \
    }                                                                                                                   \
    break

static void act_run(infold_act act, int64_t rows, int64_t n, const float *src, int64_t src_row, num *dst, int64_t dst_row,
                    const float *w, float fa, float fb) {
    if (src_row == n && dst_row == n && act != INFOLD_PRELU) { /* few numbers a row: fill the vectors */
        n *= rows;
        rows = 1;
    }
    const vf a = v_set1(fa), b = v_set1(fb), zero = v_set1(0.0f), one = v_set1(1.0f), half = v_set1(0.5f);
    switch (act) {
    case INFOLD_IDENTITY: ACT_LOOP(x);
    case INFOLD_RELU: ACT_LOOP(v_max(zero, x));
    case INFOLD_CLIP: ACT_LOOP(v_min(b, v_max(a, x)));
    case INFOLD_LEAKY_RELU: ACT_LOOP(v_sel(v_lt(x, zero), x * a, x));
    case INFOLD_PRELU: ACT_LOOP(v_sel(v_lt(x, zero), x * load_live(w + i, n - i), x)); /* the only one that reads w */
    case INFOLD_SIGMOID: ACT_LOOP(v_sigmoid(x));
    case INFOLD_HARD_SIGMOID: ACT_LOOP(v_min(one, v_max(zero, v_fma(x, a, b))));
    case INFOLD_HARD_SWISH: ACT_LOOP(x *v_min(one, v_max(zero, v_fma(x, v_set1(1.0f / 6.0f), half))));
    case INFOLD_SILU: ACT_LOOP(v_silu(x, a));
    case INFOLD_GELU: ACT_LOOP(v_gelu(x));
    case INFOLD_GELU_TANH:
        ACT_LOOP(half *x *(one + v_tanh(v_set1(0.79788456080286536f) * v_fma(v_set1(0.044715f) * x * x, x, x))));
    case INFOLD_TANH: ACT_LOOP(v_tanh(x));
    case INFOLD_ELU: ACT_LOOP(v_sel(v_lt(x, zero), a * v_expm1(x), x));
    case INFOLD_SELU: ACT_LOOP(b *v_sel(v_lt(x, zero), a *v_expm1(x), x));
    case INFOLD_CELU: ACT_LOOP(v_sel(v_lt(x, zero), a * v_expm1(x / a), x));
    case INFOLD_SOFTPLUS: ACT_LOOP(v_softplus(x));
    case INFOLD_SOFTSIGN: ACT_LOOP(x / (one + v_abs(x)));
    case INFOLD_MISH: ACT_LOOP(v_mish(x));
    case INFOLD_THRESHOLDED_RELU: ACT_LOOP(v_sel(v_le(x, a), zero, x));
    case INFOLD_EXP: ACT_LOOP(v_exp(x));
    case INFOLD_LOG: ACT_LOOP(v_log(x));
    case INFOLD_SQRT: ACT_LOOP(v_sqrt(x));
    case INFOLD_RECIPROCAL: ACT_LOOP(one / x);
    case INFOLD_ABS: ACT_LOOP(v_abs(x));
    case INFOLD_NEG: ACT_LOOP(-x);
    case INFOLD_FLOOR: ACT_LOOP(v_floor(x));
    case INFOLD_CEIL: ACT_LOOP(v_ceil(x));
    case INFOLD_ROUND: ACT_LOOP(v_round(x));
    case INFOLD_ERF: ACT_LOOP(v_erf(x));
    case INFOLD_SIGN: ACT_LOOP(v_sel(v_lt(zero, x), one, v_sel(v_lt(x, zero), -one, x)));
    case INFOLD_SQUARE: ACT_LOOP(x *x);
    case INFOLD_LINEAR: ACT_LOOP(v_fma(x, a, b));
    case INFOLD_SCALED_TANH: ACT_LOOP(a *v_tanh(b *x));
    case INFOLD_ACT_COUNT: break;
    }
}
