/* The portable instruction set: 4 floats in the compilers' own vector extension. It is plain code on any CPU (SSE2 on x86-64) and
 * the reference that every other header is tested against. */
#include <math.h>
#include <string.h>

#define ISA(name) name##_scalar
#define ISA_NAME "scalar"
#define VL 4
#define VEC_MR 6

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef vi vm;

#define V_EACH(expr)                                                                                                    \
    vf out = {0};                                                                                                       \
    for (int i = 0; i < VL; i++) out[i] = (expr);                                                                       \
    return out

static inline vf v_load(const float *p) {
    vf a;
    memcpy(&a, p, sizeof a);
    return a;
}
static inline vf v_loadn(const float *p, int64_t n) {
    vf a = {0};
    for (int64_t i = 0; i < n; i++) a[i] = p[i];
    return a;
}
static inline void v_store(float *p, vf a) { memcpy(p, &a, sizeof a); }
static inline void v_storen(float *p, vf a, int64_t n) {
    for (int64_t i = 0; i < n; i++) p[i] = a[i];
}
static inline void v_stream(float *p, vf a) { v_store(p, a); } /* past the caches, where there is an instruction for that */
static inline void v_stream_end(void) {}
static inline vf v_set1(float x) { return (vf){x, x, x, x}; }
static inline vf v_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf v_sel(vm m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); } /* m ? a : b */
/* min/max return the second operand when either is NaN: pass the data second and NaN survives */
static inline vf v_min(vf a, vf b) { return v_sel((vm)(a < b), a, b); }
static inline vf v_max(vf a, vf b) { return v_sel((vm)(a > b), a, b); }
static inline vf v_sqrt(vf a) { V_EACH(sqrtf(a[i])); }
static inline vf v_floor(vf a) { V_EACH(floorf(a[i])); }
static inline vf v_ceil(vf a) { V_EACH(ceilf(a[i])); }
static inline vf v_round(vf a) { V_EACH(nearbyintf(a[i])); }
static inline vf v_abs(vf a) { return (vf)((vi)a & (vi){0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff}); }
static inline vm v_lt(vf a, vf b) { return (vm)(a < b); }
static inline vm v_le(vf a, vf b) { return (vm)(a <= b); }
static inline vm v_eq(vf a, vf b) { return (vm)(a == b); }
/* Like the x86 instruction: out of range and NaN give INT32_MIN instead of undefined behaviour. */
static inline vi v_toint(vf a) {
    vi out = {0};
    for (int i = 0; i < VL; i++)
        out[i] = a[i] >= -2147483648.0f && a[i] < 2147483648.0f ? (int32_t)nearbyintf(a[i]) : INT32_MIN;
    return out;
}
static inline vf v_tofloat(vi a) { V_EACH((float)a[i]); }
static inline vi v_bits(vf a) { return (vi)a; }
static inline vf v_frombits(vi a) { return (vf)a; }
static inline vi vi_set1(int32_t x) { return (vi){x, x, x, x}; }
typedef uint32_t vu_ __attribute__((vector_size(16)));
static inline vi vi_add(vi a, vi b) { return (vi)((vu_)a + (vu_)b); } /* wraps, as the instructions do */
static inline vi vi_sub(vi a, vi b) { return (vi)((vu_)a - (vu_)b); }
static inline vi vi_and(vi a, vi b) { return a & b; }
static inline vi vi_or(vi a, vi b) { return a | b; }
static inline vf v_permute(vf a, vi i) { return (vf){a[i[0]], a[i[1]], a[i[2]], a[i[3]]}; }
#define vi_shl(a, n) ((vi)((vu_)(a) << (n)))
#define vi_sar(a, n) ((a) >> (n))
static inline float v_sum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
static inline float v_hmax(vf a) { return fmaxf(fmaxf(a[0], a[2]), fmaxf(a[1], a[3])); }
static inline float v_hmin(vf a) { return fminf(fminf(a[0], a[2]), fminf(a[1], a[3])); }
