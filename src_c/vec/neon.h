/* Advanced SIMD of aarch64, where every CPU has it: 4 floats, no masks, no stores past the caches. */
#include <arm_neon.h>
#include <string.h>

#define ISA(name) name##_neon
#define ISA_NAME "neon"
#define VL 4
#define VEC_MR 14 /* 14 x 2 accumulators + 2 of B + 1 broadcast <= 32 registers */

typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t vm;

static inline vf v_load(const float *p) { return vld1q_f32(p); }
static inline vf v_loadn(const float *p, int64_t n) {
    float lane[VL] = {0};
    memcpy(lane, p, (size_t)n * sizeof *p);
    return vld1q_f32(lane);
}
static inline void v_store(float *p, vf a) { vst1q_f32(p, a); }
static inline void v_storen(float *p, vf a, int64_t n) {
    float lane[VL];
    vst1q_f32(lane, a);
    memcpy(p, lane, (size_t)n * sizeof *p);
}
static inline void v_stream(float *p, vf a) { vst1q_f32(p, a); }
static inline void v_stream_end(void) {}
static inline vf v_set1(float x) { return vdupq_n_f32(x); }
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf v_sel(vm m, vf a, vf b) { return vbslq_f32(m, a, b); } /* m ? a : b */
/* min/max return the second operand when either is NaN (FMIN and FMAX would return NaN): pass the data second and NaN survives */
static inline vf v_min(vf a, vf b) { return v_sel(vcltq_f32(a, b), a, b); }
static inline vf v_max(vf a, vf b) { return v_sel(vcgtq_f32(a, b), a, b); }
static inline vf v_sqrt(vf a) { return vsqrtq_f32(a); }
static inline vf v_floor(vf a) { return vrndmq_f32(a); }
static inline vf v_ceil(vf a) { return vrndpq_f32(a); }
static inline vf v_round(vf a) { return vrndnq_f32(a); }
static inline vf v_abs(vf a) { return vabsq_f32(a); }
static inline vm v_lt(vf a, vf b) { return vcltq_f32(a, b); }
static inline vm v_le(vf a, vf b) { return vcleq_f32(a, b); }
static inline vm v_eq(vf a, vf b) { return vceqq_f32(a, b); }
static inline vi v_toint(vf a) { return vcvtnq_s32_f32(a); } /* NaN gives 0, what is out of range the nearest end: x86 gives INT32_MIN */
static inline vf v_tofloat(vi a) { return vcvtq_f32_s32(a); }
static inline vi v_bits(vf a) { return vreinterpretq_s32_f32(a); }
static inline vf v_frombits(vi a) { return vreinterpretq_f32_s32(a); }
static inline vi vi_set1(int32_t x) { return vdupq_n_s32(x); }
static inline vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
static inline vi vi_sub(vi a, vi b) { return vsubq_s32(a, b); }
static inline vi vi_and(vi a, vi b) { return vandq_s32(a, b); }
static inline vi vi_or(vi a, vi b) { return vorrq_s32(a, b); }
static inline vf v_permute(vf a, vi i) { return (vf){a[i[0]], a[i[1]], a[i[2]], a[i[3]]}; }
#define vi_shl(a, n) vshlq_n_s32(a, n)
#define vi_sar(a, n) vshrq_n_s32(a, n)
static inline float v_sum(vf a) { return vaddvq_f32(a); }
static inline float v_hmax(vf a) { return vmaxvq_f32(a); }
static inline float v_hmin(vf a) { return vminvq_f32(a); }
