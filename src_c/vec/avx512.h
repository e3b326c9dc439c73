/* AVX-512 F/BW/DQ/VL: 16 floats, masked tails. */
#include <immintrin.h>

#define ISA(name) name##_avx512
#define ISA_NAME "avx512"
#define VL 16
#define VEC_MR 14 /* 14 x 2 accumulators + 2 of B + 1 broadcast <= 32 registers */

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

static inline vm v_tail(int64_t n) { return (vm)((1u << n) - 1); }
static inline vf v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline vf v_loadn(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(v_tail(n), p); }
static inline void v_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline void v_storen(float *p, vf a, int64_t n) { _mm512_mask_storeu_ps(p, v_tail(n), a); }
static inline void v_stream(float *p, vf a) { _mm512_stream_ps(p, a); } /* past the caches; p is a multiple of the vector */
static inline void v_stream_end(void) { _mm_sfence(); }
static inline vf v_set1(float x) { return _mm512_set1_ps(x); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
/* min/max return the second operand when either is NaN: pass the data second and NaN survives */
static inline vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf v_sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf v_floor(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
static inline vf v_ceil(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }
static inline vf v_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf v_abs(vf a) { return _mm512_abs_ps(a); }
static inline vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vm v_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vf v_sel(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); } /* m ? a : b */
static inline vi v_toint(vf a) { return _mm512_cvtps_epi32(a); }
static inline vf v_tofloat(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vi v_bits(vf a) { return _mm512_castps_si512(a); }
static inline vf v_frombits(vi a) { return _mm512_castsi512_ps(a); }
static inline vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
#define vi_shl(a, n) _mm512_slli_epi32(a, n)
#define vi_sar(a, n) _mm512_srai_epi32(a, n)
static inline vf v_permute(vf a, vi i) { return _mm512_permutexvar_ps(i, a); } /* a[i], 0 <= i < VL */
#define v_scale2 _mm512_scalef_ps /* others have it in kernels/math.h; here n may be any number: its floor counts */
#define v_lookup16(table, i) _mm512_permutexvar_ps(i, _mm512_loadu_ps(table)) /* table[i % 16]; others have none */
static inline float v_sum(vf a) { return _mm512_reduce_add_ps(a); }
static inline float v_hmax(vf a) { return _mm512_reduce_max_ps(a); }
static inline float v_hmin(vf a) { return _mm512_reduce_min_ps(a); }
