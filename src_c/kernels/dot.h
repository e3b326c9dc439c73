/* The matrix micro-kernel on dot products of bf16 pairs: as kernels/gemm.h, in terms of v_dot2. */
#include <string.h>

#include "kernels/store.h"

enum {
    DOT_NV = INFOLD_BF16_COLUMNS / VL,
    DOT_CHUNK = 64,      /* with several terms float32 rounding counts: sums of chunks, as in gemm.h */
    DOT_PREFETCH = 4096, /* numbers of B ahead: 64 rows of pairs */
};

#ifdef v_dot2
#define DOT_UNROLL UNROLL /* the instruction: everything in registers */
#define DOT_INLINE static inline __attribute__((always_inline))
#define DOT v_dot2
#define DOT_STORE(out, acc, m, nv) store_tile(out, acc[0], DOT_NV, m, nv)
#else
#define DOT_UNROLL
#define DOT_INLINE static
#define DOT dot_emulated
#define DOT_STORE(out, acc, m, nv) for (int i = 0; i < m; i++) store_row(out, i, acc[i], DOT_NV)

static vf dot_emulated(vf acc, vi a, vi b) {
    return v_flush(v_fma(v_even(a), v_even(b), v_flush(v_fma(v_odd(a), v_odd(b), v_flush(acc)))));
}
#endif

/* acc += numbers [k, end) behind each row's pointer times the rows of B from `b` on */
DOT_INLINE void dot_rows(const uint16_t *const *a, const uint16_t *b, int64_t k, int64_t end, vf acc[][DOT_NV], const int m, const int nv) {
    for (; k < end; k += 2, b += 2 * INFOLD_BF16_COLUMNS) {
        vi bv[DOT_NV];
        DOT_UNROLL for (int j = 0; j < nv; j++) memcpy(&bv[j], b + 2 * j * VL, sizeof bv[j]);
        DOT_UNROLL for (int j = 0; j < nv; j += DOT_NV / 2) __builtin_prefetch(b + 2 * j * VL + DOT_PREFETCH, 0, 3);
        DOT_UNROLL for (int i = 0; i < m; i++) {
            int32_t pair;
            memcpy(&pair, a[i] + k, sizeof pair);
            const vi av = vi_set1(pair);
            DOT_UNROLL for (int j = 0; j < nv; j++) acc[i][j] = DOT(acc[i][j], av, bv[j]);
        }
    }
}

DOT_INLINE void dot_clear(vf acc[][DOT_NV], const int m, const int nv) {
    DOT_UNROLL for (int i = 0; i < m; i++) DOT_UNROLL for (int j = 0; j < nv; j++) acc[i][j] = v_set1(0.0f);
}

/* With several terms there is a single tap. */
DOT_INLINE void dot_tile(const infold_bf16_tile *t, const int m, const int nv) {
    vf acc[VEC_MR][DOT_NV];
    volatile vf total[VEC_MR][DOT_NV]; /* in memory, as in gemm.h */
    const uint16_t *a[VEC_MR], *b = t->b;
    const int64_t chunk = t->terms == 1 ? t->k : DOT_CHUNK;
    DOT_UNROLL for (int i = 0; i < m; i++) a[i] = t->a[i];
    const infold_store *s = &t->out; /* what the epilogue needs arrives while k runs */
    if (s->r16) DOT_UNROLL for (int i = 0; i < m; i++) __builtin_prefetch(s->r16[i] + s->column, 0, 3);
    if (s->c16) DOT_UNROLL for (int i = 0; i < m; i++) __builtin_prefetch(s->c16[i] + s->column, 1, 3);
    dot_clear(acc, m, nv);
    for (int64_t tap = 0; tap < t->taps; tap++)
        for (int64_t k = 0; k < t->k; k += chunk, b += chunk * INFOLD_BF16_COLUMNS) {
            const int64_t count = t->k - k < chunk ? t->k - k : chunk;
            for (int64_t order = t->terms - 1; order >= 0; order--) /* the smallest first: large sums are rounded less often */
                for (int64_t i = 0; i <= order; i++) {
                    const int64_t from = t->tap[tap] + i * t->a_plane + k;
                    dot_rows(a, b + (order - i) * t->b_plane, from, from + count, acc, m, nv);
                }
            if (t->terms == 1) continue;
            DOT_UNROLL for (int i = 0; i < m; i++) DOT_UNROLL for (int j = 0; j < nv; j++) {
                if (k > 0) acc[i][j] += total[i][j];
                total[i][j] = acc[i][j];
            }
            if (k + count < t->k) dot_clear(acc, m, nv);
        }
    DOT_STORE(&t->out, acc, m, nv);
}

#ifdef v_dot2
#define DOT_DEFINE(m)                                                                                                   \
    static void dot_##m##x1(const infold_bf16_tile *t) { dot_tile(t, m, 1); }                                           \
    static void dot_##m##x2(const infold_bf16_tile *t) { dot_tile(t, m, 2); }
DOT_DEFINE(1) DOT_DEFINE(2) DOT_DEFINE(3) DOT_DEFINE(4) DOT_DEFINE(5) DOT_DEFINE(6) DOT_DEFINE(7)
DOT_DEFINE(8) DOT_DEFINE(9) DOT_DEFINE(10) DOT_DEFINE(11) DOT_DEFINE(12) DOT_DEFINE(13) DOT_DEFINE(14)
#define DOT_ROW(v)                                                                                                      \
    {dot_1x##v, dot_2x##v, dot_3x##v, dot_4x##v,  dot_5x##v,  dot_6x##v,  dot_7x##v,                                    \
     dot_8x##v, dot_9x##v, dot_10x##v, dot_11x##v, dot_12x##v, dot_13x##v, dot_14x##v}

static void dot_run(const infold_bf16_tile *t, int64_t m) {
    static void (*const kernel[2][VEC_MR])(const infold_bf16_tile *) = {DOT_ROW(1), DOT_ROW(2)};
    kernel[t->out.n > VL][m - 1](t);
}
#else
static void dot_run(const infold_bf16_tile *t, int64_t m) { dot_tile(t, (int)m, DOT_NV); }
#endif

static void dot_begin(int64_t height) { (void)height; }
static void dot_end(void) {}

static float dot_peak_run(int64_t iterations) {
    vf acc[VEC_MR][2];
    const vi ones = vi_set1(0x3f803f80);
    UNROLL for (int i = 0; i < VEC_MR; i++) UNROLL for (int j = 0; j < 2; j++) acc[i][j] = v_set1((float)(2 * i + j));
    for (int64_t n = 0; n < iterations; n++)
        UNROLL for (int i = 0; i < VEC_MR; i++) UNROLL for (int j = 0; j < 2; j++) acc[i][j] = DOT(acc[i][j], ones, ones);
    vf sum = v_set1(0.0f);
    UNROLL for (int i = 0; i < VEC_MR; i++) UNROLL for (int j = 0; j < 2; j++) sum += acc[i][j];
    return v_sum(sum);
}

const infold_bf16 ISA(infold_bf16) = {
    .mr = VEC_MR,
    .m_step = 1,
    .depth_step = 2,
    .anywhere = true,
#ifdef v_dot2
    .macs_per_cycle = 4 * VL,
#endif
    .begin = dot_begin,
    .end = dot_end,
    .gemm = dot_run,
    BF16_IMAGES,
    .peak = dot_peak_run,
    .peak_macs = 4 * VEC_MR * VL,
};
