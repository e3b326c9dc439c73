/* The numbers of an image: float32, or, where NUM_BF16 is defined, bf16. Kernels that read or write images of either are written
 * once, in terms of these; what they compute is float32. */
#ifndef INFOLD_NUM_H
#define INFOLD_NUM_H

#define INLINE static inline __attribute__((always_inline))

INLINE vf load_live(const float *p, int64_t live) { return live >= VL ? v_load(p) : v_loadn(p, live); }
INLINE void store_live(float *p, vf x, int64_t live) {
    if (live >= VL)
        v_store(p, x);
    else
        v_storen(p, x, live);
}

#ifdef NUM_BF16
typedef uint16_t num;
INLINE vf n_load(const num *p, int64_t live) { return v_loadbf16(p, live < VL ? live : VL); }
INLINE void n_store(num *p, vf x, int64_t live) { v_storebf16(p, v_tobf16(x), live < VL ? live : VL); }
#else
typedef float num;
INLINE vf n_load(const num *p, int64_t live) { return load_live(p, live); }
INLINE void n_store(num *p, vf x, int64_t live) { store_live(p, x, live); }
#endif

/* x to out[at], or, where bf16 kernels are given room for it, to sums[at] as it is. */
INLINE void n_store_either(void *out, float *sums, int64_t at, vf x, int64_t live) {
    if (sizeof(num) < sizeof(float) && sums) store_live(sums + at, x, live);
    else n_store((num *)out + at, x, live);
}

#endif
