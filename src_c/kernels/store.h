/* How every matrix kernel ends. */
#ifndef INFOLD_STORE_H
#define INFOLD_STORE_H

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* What becomes of one vector of sums, the bias added. */
static inline __attribute__((always_inline)) void store_vector(const infold_store *s, const int i, int64_t offset, int64_t live, vf x) {
    if (s->r) x += live == VL ? v_load(s->r[i] + offset) : v_loadn(s->r[i] + offset, live);
    if (s->r16) x += v_loadbf16(s->r16[i] + offset, live);
    x = v_min(v_set1(s->hi), v_max(v_set1(s->lo), x));
    if (s->c16) v_storebf16(s->c16[i] + offset, v_tobf16(x), live);
    else if (live == VL) v_store(s->c[i] + offset, x);
    else v_storen(s->c[i] + offset, x, live);
}

/* out = clamp(sums + bias + residual) for m x nv vectors of sums, `pitch` vectors from row to row. */
static inline __attribute__((always_inline)) void store_tile(const infold_store *s, const vf *acc, const int pitch, const int m,
                                                             const int nv) {
    const infold_store to = *s, round = {.c16 = to.c16, .lo = to.lo, .hi = to.hi},
                       join = {.c16 = to.c16, .r16 = to.r16, .lo = to.lo, .hi = to.hi}; /* what is tested here is not for each vector */
    UNROLL for (int j = 0; j < nv; j++) {
        const int64_t live = to.n - j * VL < VL ? to.n - j * VL : VL, offset = to.column + j * VL;
        if (live <= 0) break;
        const vf bias = v_load(to.bias + j * VL), *x = acc + j;
        if (live < VL) UNROLL for (int i = 0; i < m; i++) store_vector(&to, i, offset, live, x[i * pitch] + bias);
        else if (!to.c16 || to.r) UNROLL for (int i = 0; i < m; i++) store_vector(&to, i, offset, VL, x[i * pitch] + bias);
        else if (to.r16) UNROLL for (int i = 0; i < m; i++) store_vector(&join, i, offset, VL, x[i * pitch] + bias);
        else UNROLL for (int i = 0; i < m; i++) store_vector(&round, i, offset, VL, x[i * pitch] + bias);
    }
}

/* Row i alone. */
static inline __attribute__((always_inline)) void store_row(const infold_store *s, int64_t i, const vf *acc, const int nv) {
    const infold_store row = {s->c ? s->c + i : NULL, s->r ? s->r + i : NULL, s->column, s->bias, s->n, s->lo, s->hi,
                              s->c16 ? s->c16 + i : NULL, s->r16 ? s->r16 + i : NULL};
    store_tile(&row, acc, nv, 1, nv);
}

#endif
