#ifndef INFOLD_EMULATED_BF16_H
#define INFOLD_EMULATED_BF16_H

#include <string.h>

/* The instructions of vec/avx512_bf16.h in terms of any other vec/ header: the same numbers, bit for bit.
 *
 * VCVTNEPS2BF16 and VDPBF16PS take denormals for zero, flush denormal results to zero and round to nearest even, whatever MXCSR
 * says. VDPBF16PS adds the product of the odd elements to the sum first, then that of the even ones, each with one rounding (Intel
 * SDM, volume 2). A product of two bf16 numbers has 16 bits: it is exact in float32, so that a product and a sum round as a fused
 * multiply-add does, except where the product alone leaves float32's range. */

typedef vi vh; /* VL bf16 numbers, each in the lower half of a lane */

static inline vf v_flush(vf a) { return v_sel(v_lt(v_abs(a), v_set1(0x1p-126f)), v_frombits(vi_and(v_bits(a), vi_set1(INT32_MIN))), a); }

#define EMULATED static __attribute__((noinline, unused)) /* many small calls, none of them in a hurry */

EMULATED vh v_tobf16(vf a) {
    const vi bits = v_bits(v_flush(a)), odd = vi_and(vi_sar(bits, 16), vi_set1(1));
    const vf rounded = v_frombits(vi_add(vi_add(bits, vi_set1(0x7fff)), odd)), quiet = v_frombits(vi_or(bits, vi_set1(0x400000)));
    return vi_and(vi_sar(v_bits(v_sel(v_eq(a, a), rounded, quiet)), 16), vi_set1(0xffff));
}
static inline vf v_frombf16(vh a) { return v_frombits(vi_shl(a, 16)); }
EMULATED vf v_loadbf16(const uint16_t *p, int64_t n) {
    int32_t lane[VL] = {0};
    vi wide;
    for (int64_t i = 0; i < n; i++) lane[i] = p[i];
    memcpy(&wide, lane, sizeof wide);
    return v_frombf16(wide);
}
EMULATED void v_storebf16(uint16_t *p, vh a, int64_t n) {
    int32_t lane[VL];
    memcpy(lane, &a, sizeof lane);
    for (int64_t i = 0; i < n; i++) p[i] = (uint16_t)lane[i];
}
/* The numbers of pairs of bf16, even elements in the lower halves. */
static inline vf v_even(vi pairs) { return v_flush(v_frombits(vi_shl(pairs, 16))); }
static inline vf v_odd(vi pairs) { return v_flush(v_frombits(vi_and(pairs, vi_set1(INT32_MIN >> 15)))); }

#endif
