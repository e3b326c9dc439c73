/* Vector elementary functions, at most 3 ulp each over the whole range, denormals included, what is made of several of them up to
 * 4 (tests/native/test_unary.py). exp, log and tanh follow Cephes (S. Moshier, 1989). NaN goes through every one of them. */

#ifndef v_scale2
/* a * 2^n for a whole number n: in two halves, so that results down to denormals and up to FLT_MAX come out right */
static inline vf v_scale2(vf a, vf n) {
    const vi whole = v_toint(n), half = vi_sar(whole, 1), rest = vi_sub(whole, half), one = vi_set1(127);
    return a * v_frombits(vi_shl(vi_add(half, one), 23)) * v_frombits(vi_shl(vi_add(rest, one), 23));
}
#endif

#ifndef v_reciprocal /* where bf16 is enough: relative error below 2^-11 */
#define v_reciprocal(a) (v_set1(1.0f) / (a))
#endif

#ifdef v_lookup16
/* 2^n * 2^r by a table of 2^(j/16) (P. Tang, 1989): n is a number of sixteenths, given as its sum with v_sixteenths; |r| <= 1/32,
 * where the polynomial's relative error is 2e-9. Without what the table's floats lack, all results of a sixteenth would be off to
 * one side by up to 5e-8, which adds up in sums and products of many. */
#define v_sixteenths v_set1(786432.0f) /* 1.5 * 2^19: sums with it are rounded to sixteenths */
static inline vf v_pow2(vf sum, vf r) {
    static const float sixteenth[16] = {
        1.0f, 1.04427373f, 1.09050775f, 1.13878858f, 1.18920708f, 1.24185777f, 1.29683959f, 1.35425556f,
        1.41421354f, 1.47682619f, 1.54221082f, 1.61049032f, 1.68179286f, 1.75625217f, 1.8340081f, 1.91520655f};
    static const float lacks[16] = {
        0.0f, 4.83347016e-08f, -1.30775399e-08f, 5.38622231e-08f, 3.79763527e-08f, 4.4968381e-08f,
        -4.01899953e-08f, -1.01233493e-08f, 2.4203235e-08f, -4.50089885e-08f, 8.07090483e-09f, 9.83621717e-09f,
        -2.47553267e-08f, -9.23577037e-09f, -1.1239278e-08f, 9.84532811e-09f};
    const vf t = v_lookup16(sixteenth, v_bits(sum)), low = v_lookup16(lacks, v_bits(sum));
    vf p = v_fma(v_set1(5.550410867e-2f), r, v_set1(2.402342863e-1f));
    p = v_fma(p, r, v_set1(6.931471806e-1f));
    return v_scale2(t + v_fma(p * r, t, low), sum - v_sixteenths);
}
#endif

/* 2^x for |x| <= 1000. Elsewhere a Chebyshev fit of (2^r - 1) / r on [-1/2, 1/2], relative error 1e-8 before rounding; for results
 * that are rounded to bf16 2^r by a minimax polynomial, 8e-5. */
static inline vf v_pow2_near(vf x) {
#if defined v_lookup16 && !defined NUM_BF16
    const vf sum = x + v_sixteenths;
    return v_pow2(sum, x - (sum - v_sixteenths));
#else
    const vf n = v_round(x), r = x - n;
#ifdef NUM_BF16
    vf p = v_fma(v_set1(5.517166876e-2f), r, v_set1(2.426111328e-1f));
    p = v_fma(p, r, v_set1(6.932609864e-1f));
    return v_scale2(v_fma(p, r, v_set1(9.999280729e-1f)), n);
#else
    vf p = v_set1(1.546144777e-4f);
    p = v_fma(p, r, v_set1(1.339086681e-3f));
    p = v_fma(p, r, v_set1(9.618056938e-3f));
    p = v_fma(p, r, v_set1(5.550356954e-2f));
    p = v_fma(p, r, v_set1(2.402265072e-1f));
    p = v_fma(p, r, v_set1(6.931471825e-1f));
    return v_scale2(v_fma(p, r, v_set1(1.0f)), n);
#endif
#endif
}

static inline vf v_exp2(vf x) { return v_pow2_near(v_max(v_set1(-150.0f), v_min(v_set1(128.5f), x))); }

static inline vf v_exp(vf x) {
    const vf clamped = v_max(v_set1(-104.0f), v_min(v_set1(89.0f), x));
#ifdef NUM_BF16
    return v_pow2_near(clamped * v_set1(1.44269504088896341f));
#elif defined v_lookup16
    const vf log2e = v_set1(1.44269504f), sum = v_fma(clamped, log2e, v_sixteenths), n = sum - v_sixteenths;
    return v_pow2(sum, v_fma(clamped, v_set1(1.92596299e-8f), v_fma(clamped, log2e, -n))); /* the last is what log2e lacks */
#else
    const vf n = v_round(clamped * v_set1(1.44269504088896341f));
    vf r = v_fma(n, v_set1(-0.693359375f), clamped);
    r = v_fma(n, v_set1(2.12194440e-4f), r);
    vf p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    return v_scale2(v_fma(v_fma(p, r, v_set1(1.0f)), r, v_set1(1.0f)), n);
#endif
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

/* exp of -|x| only, so that neither end overflows: 1/(1 + e) above zero, e/(1 + e) below. */
static inline vf v_sigmoid(vf x) {
#ifdef NUM_BF16
    return v_reciprocal(v_set1(1.0f) + v_exp(-x));
#else
    const vf one = v_set1(1.0f), e = v_exp(-v_abs(x));
    return v_sel(v_lt(x, v_set1(0.0f)), e, one) / (one + e);
#endif
}

/* x * sigmoid(a x). Where exp(-a x) is no number any more it is zero: at most 3e-37 off. */
static inline vf v_silu(vf x, vf a) {
#ifdef NUM_BF16
    return x * v_sigmoid(a * x);
#else
    return x / (v_set1(1.0f) + v_exp(-a * x));
#endif
}

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

/* erf in two pieces (coefficients after N. Juffa, 2018): an odd polynomial near zero, and erfc(t) = exp(q(t)) from 0.93 on, which
 * keeps its relative accuracy far into the tail. */
#define ERF_SPLIT 0.927734375f
static inline vf v_erf_near(vf x) {
    const vf z = x * x;
    vf p = v_set1(-5.96761703e-4f);
    p = v_fma(p, z, v_set1(4.99119423e-3f));
    p = v_fma(p, z, v_set1(-2.67681349e-2f));
    p = v_fma(p, z, v_set1(1.12819925e-1f));
    p = v_fma(p, z, v_set1(-3.76125336e-1f));
    p = v_fma(p, z, v_set1(1.28379166e-1f));
    return v_fma(p, x, x);
}
static inline vf v_erfc_far(vf t) {
    const vf z = t * t;
    vf p = v_fma(v_set1(-1.72853470e-5f), t, v_set1(3.83197126e-4f));
    p = v_fma(p, z, v_fma(v_set1(-3.88396438e-3f), t, v_set1(2.42546219e-2f)));
    p = v_fma(p, t, v_set1(-1.06777877e-1f));
    p = v_fma(p, t, v_set1(-6.34846687e-1f));
    p = v_fma(p, t, v_set1(-1.28717512e-1f));
    return v_exp(v_fma(p, t, -t));
}
static inline vf v_erf(vf x) {
    const vf t = v_abs(x), far = v_set1(1.0f) - v_erfc_far(t);
    return v_sel(v_lt(t, v_set1(ERF_SPLIT)), v_erf_near(x), v_sel(v_lt(x, v_set1(0.0f)), -far, far));
}

/* x times the normal distribution function: max(0, x) - t Q(t), t = |x|, Q(t) = erfc(t / sqrt 2) / 2. Before rounding the result is
 * within 2e-9 by table, fits of degree 6 for each half of t, and within 1.5e-8 without: Q(t) is then 2^(t p(t)) / 2 with a minimax p. */
static inline vf v_gelu(vf x) {
    const vf above = v_max(v_set1(0.0f), x);
#ifdef v_lookup16
    static const float terms[7][16] = {
        {-2.910383e-12f, 0.0030280647f, 0.0020014404f, -0.0006360373f, -0.0013354106f, -0.0005168346f, 0.000105377156f,
         0.00017929787f, 8.301114e-5f, 2.2615675e-5f, 4.1429803e-6f, 5.37742e-7f, 5.081334e-8f, 3.5531214e-9f, 1.8584125e-10f,
         0.0f},
        {-0.009844702f, -0.004548598f, 0.0039495965f, 0.0058079856f, 0.0022621886f, -0.00063786184f, -0.0010986744f, -0.0005808948f,
         -0.00018457048f, -3.9898267e-5f, -6.1622295e-6f, -6.974461e-7f, -5.8728805e-8f, -3.7159658e-9f, -1.779025e-10f, 0.0f},
        {2.3874235e-13f, -0.020168722f, -0.020163642f, -0.006071981f, 0.0044986866f, 0.0059341886f, 0.0033240977f, 0.001177262f,
         0.00028994674f, 5.168249e-5f, 6.8095724e-6f, 6.717076e-7f, 5.0021402e-8f, 2.8286098e-9f, 1.2197349e-10f, 0.0f},
        {0.066486366f, 0.044007055f, 2.5935335e-6f, -0.026980935f, -0.026995873f, -0.0153381545f, -0.005909422f, -0.0016362091f,
         -0.0003344886f, -5.1247906e-5f, -5.939346e-6f, -5.238818e-7f, -3.531998e-8f, -1.82578e-9f, -7.2530634e-11f, 0.0f},
        {-3.5527137e-15f, 0.08801631f, 0.12098535f, 0.0971382f, 0.053990975f, 0.021910373f, 0.00664777f, 0.001527194f,
         0.00026766068f, 3.5963603e-5f, 3.7168559e-6f, 2.9617894e-7f, 1.822896e-8f, 8.677212e-10f, 3.197886e-11f, 0.0f},
        {-0.39894226f, -0.35206532f, -0.24197075f, -0.12951761f, -0.053990964f, -0.017528294f, -0.004431846f, -0.00087268325f,
         -0.00013383091f, -1.5984002e-5f, -1.4867785e-6f, -1.0770656e-7f, -6.0768452e-9f, -2.670306e-10f, -9.139022e-12f, 0.0f},
        {0.5f, 0.30853754f, 0.15865526f, 0.0668072f, 0.022750132f, 0.0062096654f, 0.001349898f, 0.00023262909f, 3.1671243e-5f,
         3.3976728e-6f, 2.8665147e-7f, 1.8989542e-8f, 9.86585e-10f, 4.0159782e-11f, 1.2797982e-12f, 0.0f},
    };
    const vf halves = v_set1(6291456.0f); /* 1.5 * 2^22: sums with it are rounded to halves */
    const vf t = v_min(v_set1(7.5f), v_abs(x)), sum = t + halves, r = t - (sum - halves);
    vf q = v_lookup16(terms[0], v_bits(sum));
    UNROLL for (int i = 1; i < 7; i++) q = v_fma(q, r, v_lookup16(terms[i], v_bits(sum)));
    return v_fma(-t, q, above);
#else
    const vf t = v_min(v_set1(11.0f), v_abs(x));
    vf p = v_set1(-1.750452445e-06f);
    p = v_fma(p, t, v_set1(2.613843665e-05f));
    p = v_fma(p, t, v_set1(-1.218897591e-04f));
    p = v_fma(p, t, v_set1(-2.961921570e-04f));
    p = v_fma(p, t, v_set1(7.277691925e-03f));
    p = v_fma(p, t, v_set1(-5.264974847e-02f));
    p = v_fma(p, t, v_set1(-4.591554051e-01f));
    p = v_fma(p, t, v_set1(-1.151111640e+00f));
    return v_fma(v_set1(-0.5f) * t, v_pow2_near(p * t), above);
#endif
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

/* tanh(log(1 + e)) = e(e + 2) / (e(e + 2) + 2), e = exp(x); 1 in float32 from x = 10 on. */
static inline vf v_mish(vf x) {
    const vf two = v_set1(2.0f), e = v_exp(v_min(v_set1(20.0f), x)), n = e * (e + two);
    return x * (n / (n + two));
}
