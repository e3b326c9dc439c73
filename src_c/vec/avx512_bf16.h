/* AVX512-BF16: AVX-512 with the conversion to bf16 and the dot product of pairs. */
#include "vec/avx512.h"

#undef ISA
#define ISA(name) name##_avx512_bf16

typedef __m256i vh; /* 16 bf16 numbers */

static inline vh v_tobf16(vf a) { return (vh)_mm512_cvtneps_pbh(a); }
static inline vf v_frombf16(vh a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16)); }
static inline vf v_loadbf16(const uint16_t *p, int64_t n) { /* n numbers, at most VL; zeros behind them */
    return v_frombf16(n == VL ? _mm256_loadu_si256((const __m256i *)p) : _mm256_maskz_loadu_epi16(v_tail(n), p));
}
static inline void v_storebf16(uint16_t *p, vh a, int64_t n) {
    if (n == VL) _mm256_storeu_si256((__m256i *)p, a);
    else _mm256_mask_storeu_epi16(p, v_tail(n), a);
}
#define v_reciprocal _mm512_rcp14_ps
#define v_dot2(acc, a, b) _mm512_dpbf16_ps(acc, (__m512bh)(a), (__m512bh)(b))
