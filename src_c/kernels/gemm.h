/* The matrix micro-kernel: m rows x (1 or 2) vectors of accumulators that never leave the registers while k runs.
 * One function per m, so that every edge is a full-speed kernel of its own size. Rows come as pointers: x86 has too few integer
 * registers for 14 of them, but reloading a pointer is an integer load, and those ports idle in this loop. */

#include <stdbool.h>

#include "kernels/store.h"

enum {
    PREFETCH = 2048, /* floats of B ahead: packed weights may come from memory, and 64 rows of the loop give them the time */
    LINE = 16,       /* floats */
};

/* acc += the elements k of the rows times the row b */
static inline __attribute__((always_inline)) void gemm_row(vf acc[][2], const float *const *a, int64_t k, const float *b,
                                                           const float *next, const int m, const int nv) {
    vf bv[2];
    UNROLL for (int j = 0; j < nv; j++) bv[j] = v_load(b + j * VL);
    UNROLL for (int j = 0; j < nv * VL; j += LINE) __builtin_prefetch(next + j, 0, 3);
    UNROLL for (int i = 0; i < m; i++) {
        const vf av = v_set1(a[i][k]);
        UNROLL for (int j = 0; j < nv; j++) acc[i][j] = v_fma(av, bv[j], acc[i][j]);
    }
}

static inline __attribute__((always_inline)) void gemm_tile(const infold_tile *t, const int m, const int nv) {
    vf acc[VEC_MR][2];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] = v_set1(0.0f);
    const float *a[VEC_MR];
    UNROLL for (int i = 0; i < m; i++) a[i] = t->a[i];
    const bool elsewhere = nv * VL > LINE && t->next; /* AVX2 has no registers to spare for it, and asks memory for less */
    const float *b = t->b, *next = elsewhere ? t->next : b + PREFETCH;
    const int64_t next_step = elsewhere ? t->next_step : nv * VL;
    const infold_ahead *ahead = t->ahead, *const last = ahead + t->aheads;
    const int64_t k_count = t->k, taps = t->taps, chunk = t->chunk;
    volatile vf total[VEC_MR][2]; /* in memory: in registers, for some m GCC 12 would rather spill B from the inner loop */
    int64_t chained = 0;
    bool flushed = false;
    for (int64_t tap = 0; tap < taps; tap++) {
        const int64_t begin = t->tap[tap], stop = begin + k_count;
        for (int64_t k = begin; k < stop;) {
            const int64_t end = stop - k < chunk ? stop : k + chunk;
            if (chained + (end - k) > chunk) {
                UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < nv; j++) {
                    if (flushed) acc[i][j] += total[i][j];
                    total[i][j] = acc[i][j];
                    acc[i][j] = v_set1(0.0f);
                }
                flushed = true;
                chained = 0;
            }
            chained += end - k;
            for (; ahead < last && k < end; ahead++) {
                const float *at = ahead->at;
                const int64_t step = ahead->step, until = end - k < INFOLD_AHEAD_ROWS ? end : k + INFOLD_AHEAD_ROWS;
                for (; k < until; k++, b += nv * VL, next += next_step, at += step) {
                    UNROLL for (int j = 0; j < 2 * VL; j += LINE) __builtin_prefetch(at + j, 0, 3);
                    gemm_row(acc, a, k, b, next, m, nv);
                }
            }
            for (; k < end; k++, b += nv * VL, next += next_step) gemm_row(acc, a, k, b, next, m, nv);
        }
    }
    if (flushed) UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] += total[i][j];
    const infold_store out = {t->c, t->r, t->column, t->bias, t->n, t->lo, t->hi, NULL, NULL};
    store_tile(&out, acc[0], 2, m, nv);
}

#define GEMM_DEFINE(m)                                                                                                  \
    static void gemm_##m##x1(const infold_tile *t) { gemm_tile(t, m, 1); }                                              \
    static void gemm_##m##x2(const infold_tile *t) { gemm_tile(t, m, 2); }
GEMM_DEFINE(1) GEMM_DEFINE(2) GEMM_DEFINE(3) GEMM_DEFINE(4) GEMM_DEFINE(5) GEMM_DEFINE(6)
#if VEC_MR > 6
GEMM_DEFINE(7) GEMM_DEFINE(8) GEMM_DEFINE(9) GEMM_DEFINE(10) GEMM_DEFINE(11) GEMM_DEFINE(12) GEMM_DEFINE(13) GEMM_DEFINE(14)
#define GEMM_ROW(v)                                                                                                     \
    {gemm_1x##v, gemm_2x##v, gemm_3x##v, gemm_4x##v,  gemm_5x##v,  gemm_6x##v,  gemm_7x##v,                             \
     gemm_8x##v, gemm_9x##v, gemm_10x##v, gemm_11x##v, gemm_12x##v, gemm_13x##v, gemm_14x##v}
#else
#define GEMM_ROW(v) {gemm_1x##v, gemm_2x##v, gemm_3x##v, gemm_4x##v, gemm_5x##v, gemm_6x##v}
#endif
