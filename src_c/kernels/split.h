/* float32 as a sum of bf16 numbers: x = h + m + l with h = bf16(x), m = bf16(x - h), l = bf16(x - h - m), all exact but for numbers
 * near the ends of the range. Infinity and NaN are all in h; infinity times
 * the parts of another number, which may differ in sign, then is NaN. */

static void split_run(int64_t n, const float *x, int64_t terms, uint16_t *out, int64_t plane) {
    const vf top = v_set1(0x1.fep127f), infinite = v_set1(INFINITY); /* the largest bf16 number: what is above would round to infinity */
    for (int64_t at = 0; at < n; at += VL) {
        const int64_t live = n - at < VL ? n - at : VL;
        vf rest = live == VL ? v_load(x + at) : v_loadn(x + at, live);
        if (terms == 1) {
            v_storebf16(out + at, v_tobf16(rest), live);
            continue;
        }
        for (int64_t i = 0; i < terms; i++) {
            const vm finite = v_lt(v_abs(rest), infinite);
            const vh part = v_tobf16(v_sel(finite, v_min(top, v_max(v_set1(-0x1.fep127f), rest)), rest));
            v_storebf16(out + i * plane + at, part, live);
            rest = v_sel(finite, rest - v_frombf16(part), v_set1(0.0f));
        }
    }
}

static void widen_run(int64_t n, const uint16_t *x, float *out) {
    for (int64_t at = 0; at < n; at += VL) {
        const int64_t live = n - at < VL ? n - at : VL;
        const vf wide = v_loadbf16(x + at, live);
        if (live == VL) v_store(out + at, wide);
        else v_storen(out + at, wide, live);
    }
}
