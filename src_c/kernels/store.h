/* How every matrix kernel ends. */
#ifndef INFOLD_STORE_H
#define INFOLD_STORE_H

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* out = clamp(sums + bias + residual) for m x nv vectors of sums, `pitch` vectors from row to row. */
static inline __attribute__((always_inline)) void store_tile(const infold_store *s, const vf *acc, const int pitch, const int m,
                                                             const int nv) {
    const vf lo = v_set1(s->lo), hi = v_set1(s->hi);
    const int64_t n = s->n, column = s->column;
    UNROLL for (int j = 0; j < nv; j++) {
        const int64_t live = n - j * VL < VL ? n - j * VL : VL;
        if (live <= 0) break;
        const vf bias = v_load(s->bias + j * VL);
        const int64_t offset = column + j * VL;
        if (live == VL) {
            UNROLL for (int i = 0; i < m; i++) {
                vf x = acc[i * pitch + j] + bias;
                if (s->r) x += v_load(s->r[i] + offset);
                if (s->r16) x += v_loadbf16(s->r16[i] + offset, VL);
                x = v_min(hi, v_max(lo, x));
                if (s->c16) v_storebf16(s->c16[i] + offset, v_tobf16(x), VL);
                else v_store(s->c[i] + offset, x);
            }
        } else {
            UNROLL for (int i = 0; i < m; i++) {
                vf x = acc[i * pitch + j] + bias;
                if (s->r) x += v_loadn(s->r[i] + offset, live);
                if (s->r16) x += v_loadbf16(s->r16[i] + offset, live);
                x = v_min(hi, v_max(lo, x));
                if (s->c16) v_storebf16(s->c16[i] + offset, v_tobf16(x), live);
                else v_storen(s->c[i] + offset, x, live);
            }
        }
    }
}

/* Row i alone. */
static inline __attribute__((always_inline)) void store_row(const infold_store *s, int64_t i, const vf *acc, const int nv) {
    const infold_store row = {s->c ? s->c + i : NULL, s->r ? s->r + i : NULL, s->column, s->bias, s->n, s->lo, s->hi,
                              s->c16 ? s->c16 + i : NULL, s->r16 ? s->r16 + i : NULL};
    store_tile(&row, acc, nv, 1, nv);
}

#endif
