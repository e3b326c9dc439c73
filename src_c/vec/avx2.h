/* AVX2 + FMA: 8 floats, tails through maskload/maskstore. */
#include <immintrin.h>

#define ISA(name) name##_avx2
#define ISA_NAME "avx2"
#define VL 8
#define VEC_MR 6 /* 6 x 2 accumulators + 2 of B + 1 broadcast <= 16 registers */

typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm;

static inline vi v_tail(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline vf v_loadn(const float *p, int64_t n) { return _mm256_maskload_ps(p, v_tail(n)); }
static inline void v_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
static inline void v_storen(float *p, vf a, int64_t n) { _mm256_maskstore_ps(p, v_tail(n), a); }
static inline void v_stream(float *p, vf a) { _mm256_stream_ps(p, a); } /* past the caches; p is a multiple of the vector */
static inline void v_stream_end(void) { _mm_sfence(); }
static inline vf v_set1(float x) { return _mm256_set1_ps(x); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
/* min/max return the second operand when either is NaN: pass the data second and NaN survives */
static inline vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf v_sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf v_floor(vf a) { return _mm256_floor_ps(a); }
static inline vf v_ceil(vf a) { return _mm256_ceil_ps(a); }
static inline vf v_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vm v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vm v_le(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vf v_sel(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); } /* m ? a : b */
static inline vi v_toint(vf a) { return _mm256_cvtps_epi32(a); }
static inline vf v_tofloat(vi a) { return _mm256_cvtepi32_ps(a); }
static inline vi v_bits(vf a) { return _mm256_castps_si256(a); }
static inline vf v_frombits(vi a) { return _mm256_castsi256_ps(a); }
static inline vi vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
static inline vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
static inline vf v_permute(vf a, vi i) { return _mm256_permutevar8x32_ps(a, i); }
#define vi_shl(a, n) _mm256_slli_epi32(a, n)
#define vi_sar(a, n) _mm256_srai_epi32(a, n)
static inline float v_sum(vf a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
static inline float v_hmax(vf a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
static inline float v_hmin(vf a) {
    __m128 s = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_min_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_min_ss(s, _mm_shuffle_ps(s, s, 1)));
}
