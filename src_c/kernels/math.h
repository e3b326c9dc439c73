/* Vector elementary functions, a few ulp each. exp and log follow the Cephes argument reduction (S. Moshier, 1989); tanh and erf
 * use exp and rational approximations with their limits handled by clamping. NaN goes through every one of them. */

static inline vf v_exp(vf x) {
    /* 2^n by exponent arithmetic in two halves, so that results down to denormals and up to FLT_MAX come out right */
    const vf clamped = v_max(v_set1(-104.0f), v_min(v_set1(89.0f), x));
    const vf n = v_round(clamped * v_set1(1.44269504088896341f));
    vf r = v_fma(n, v_set1(-0.693359375f), clamped);
    r = v_fma(n, v_set1(2.12194440e-4f), r);
    vf p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_fma(p, r * r, r) + v_set1(1.0f);
    const vi whole = v_toint(n), half = vi_sar(whole, 1), rest = vi_sub(whole, half);
    const vi one = vi_set1(127);
    return p * v_frombits(vi_shl(vi_add(half, one), 23)) * v_frombits(vi_shl(vi_add(rest, one), 23));
}

static inline vf v_log(vf x) {
    const vm denormal = v_lt(x, v_set1(1.17549435e-38f));
    const vf scaled = v_sel(denormal, x * v_set1(8388608.0f), x);
    const vi bits = v_bits(scaled);
    /* mantissa in [sqrt(1/2), sqrt(2)) */
    const vi shifted = vi_sub(bits, vi_set1(0x3f3504f3));
    vf e = v_tofloat(vi_sar(shifted, 23));
    e = v_sel(denormal, e - v_set1(23.0f), e);
    const vf m = v_frombits(vi_add(vi_and(shifted, vi_set1(0x007fffff)), vi_set1(0x3f3504f3))) - v_set1(1.0f);
    vf p = v_set1(7.0376836292e-2f);
    p = v_fma(p, m, v_set1(-1.1514610310e-1f));
    p = v_fma(p, m, v_set1(1.1676998740e-1f));
    p = v_fma(p, m, v_set1(-1.2420140846e-1f));
    p = v_fma(p, m, v_set1(1.4249322787e-1f));
    p = v_fma(p, m, v_set1(-1.6668057665e-1f));
    p = v_fma(p, m, v_set1(2.0000714765e-1f));
    p = v_fma(p, m, v_set1(-2.4999993993e-1f));
    p = v_fma(p, m, v_set1(3.3333331174e-1f));
    const vf z = m * m;
    vf y = p * m * z;
    y = v_fma(e, v_set1(-2.12194440e-4f), y);
    y = v_fma(z, v_set1(-0.5f), y);
    y = v_fma(e, v_set1(0.693359375f), m + y);
    const vf zero = v_set1(0.0f), inf = v_set1(INFINITY);
    y = v_sel(v_eq(x, inf), inf, y);
    y = v_sel(v_eq(x, zero), v_set1(-INFINITY), y);
    y = v_sel(v_lt(x, zero), v_set1(NAN), y);
    return v_sel(v_eq(x, x), y, x);
}

static inline vf v_sigmoid(vf x) { return v_set1(1.0f) / (v_set1(1.0f) + v_exp(-x)); }

static inline vf v_tanh(vf x) {
    /* near zero a polynomial (Cephes tanhf) keeps relative accuracy; elsewhere 1 - 2/(e^2|x| + 1) */
    const vf a = v_abs(x), z = x * x;
    vf p = v_set1(-5.70498872745e-3f);
    p = v_fma(p, z, v_set1(2.06390887954e-2f));
    p = v_fma(p, z, v_set1(-5.37397155531e-2f));
    p = v_fma(p, z, v_set1(1.33314422036e-1f));
    p = v_fma(p, z, v_set1(-3.33332819422e-1f));
    const vf small = v_fma(p * z, x, x);
    const vf big = v_set1(1.0f) - v_set1(2.0f) / (v_exp(a + a) + v_set1(1.0f));
    const vf signed_big = v_sel(v_lt(x, v_set1(0.0f)), -big, big);
    return v_sel(v_lt(a, v_set1(0.625f)), small, signed_big);
}

static inline vf v_erf(vf x) {
    /* Rational minimax on [-4, 4] (as in Eigen's generic float erf), exact +-1 beyond in float32 */
    const vf c = v_max(v_set1(-4.0f), v_min(v_set1(4.0f), x)), z = c * c;
    vf p = v_set1(-2.72614225801306e-10f);
    p = v_fma(p, z, v_set1(2.77068142495902e-08f));
    p = v_fma(p, z, v_set1(-2.10102402082508e-06f));
    p = v_fma(p, z, v_set1(-5.69250639462346e-05f));
    p = v_fma(p, z, v_set1(-7.34990630326855e-04f));
    p = v_fma(p, z, v_set1(-2.95459980854025e-03f));
    p = v_fma(p, z, v_set1(-1.60960333262415e-02f));
    vf q = v_set1(-1.45660718464996e-05f);
    q = v_fma(q, z, v_set1(-2.13374055278905e-04f));
    q = v_fma(q, z, v_set1(-1.68282697438203e-03f));
    q = v_fma(q, z, v_set1(-7.37332916720468e-03f));
    q = v_fma(q, z, v_set1(-1.42647390514189e-02f));
    return p * c / q;
}

/* Softplus without overflow: max(x, 0) + log(1 + exp(-|x|)). log1p(u) = log(w) * u / (w - 1), w = 1 + u (Goldberg 1991). */
static inline vf v_log1p(vf u) {
    const vf w = v_set1(1.0f) + u, d = w - v_set1(1.0f);
    return v_sel(v_eq(d, v_set1(0.0f)), u, v_log(w) * (u / d));
}
static inline vf v_softplus(vf x) { return v_max(v_set1(0.0f), x) + v_log1p(v_exp(-v_abs(x))); }

/* exp(x) - 1 without cancellation: (w - 1) * x / log(w), w = exp(x) (Kahan). */
static inline vf v_expm1(vf x) {
    const vf w = v_exp(x), d = w - v_set1(1.0f);
    const vf near = v_sel(v_eq(d, v_set1(0.0f)), x, d * x / v_log(w));
    return v_sel(v_lt(v_abs(x), v_set1(1.0f)), near, d);
}
