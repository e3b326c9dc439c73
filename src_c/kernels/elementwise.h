/* Binary operations with broadcasting, and the blocked transpose. */
#include <math.h>
#include <string.h>

static inline float binary_scalar(infold_binary op, float x, float y) {
    switch (op) {
    case INFOLD_ADD: return x + y;
    case INFOLD_SUB: return x - y;
    case INFOLD_MUL: return x * y;
    case INFOLD_DIV: return x / y;
    case INFOLD_MIN: return x != x ? x : y != y ? y : x < y ? x : y;
    case INFOLD_MAX: return x != x ? x : y != y ? y : x > y ? x : y;
    case INFOLD_POW: return powf(x, y);
    case INFOLD_PRELU_SLOPE: return x < 0.0f ? x * y : x;
    case INFOLD_BINARY_COUNT: break;
    }
    return 0.0f;
}

/* ONNX Min/Max propagate NaN from either side. */
static inline vf v_nan_either(vf x, vf y, vf r) { return v_sel(v_eq(y, y), r, y + x); }

/* One vectorised row; LOAD_A and LOAD_B are either vector loads or a broadcast made before the loop. */
#define BINARY_ROW(LOAD_A, LOAD_B, expr)                                                                                \
    {                                                                                                                   \
        int64_t i = 0;                                                                                                  \
        for (; i + VL <= n; i += VL) {                                                                                  \
            const vf x = LOAD_A(v_load, a + i), y = LOAD_B(v_load, b + i);                                              \
            v_store(out + i, (expr));                                                                                   \
        }                                                                                                               \
        if (i < n) {                                                                                                    \
            const vf x = LOAD_A##N(a + i), y = LOAD_B##N(b + i);                                                        \
            v_storen(out + i, (expr), n - i);                                                                           \
        }                                                                                                               \
    }
#define VEC(load, p) load(p)
#define VECN(p) v_loadn(p, n - i)
#define ONE_A(load, p) a_one
#define ONE_AN(p) a_one
#define ONE_B(load, p) b_one
#define ONE_BN(p) b_one

#define BINARY_CASE(op, expr)                                                                                           \
    case op:                                                                                                            \
        if (sa && sb) BINARY_ROW(VEC, VEC, expr)                                                                        \
        else if (sa) BINARY_ROW(VEC, ONE_B, expr)                                                                       \
        else BINARY_ROW(ONE_A, VEC, expr)                                                                               \
        return

static inline void binary_row(infold_binary op, int64_t n, const float *a, int64_t sa, const float *b, int64_t sb,
                              float *out, int64_t so) {
    if (so == 1 && (sa | sb) == 1 && sa <= 1 && sb <= 1) {
        const vf a_one = v_set1(a[0]), b_one = v_set1(b[0]);
        switch (op) {
            BINARY_CASE(INFOLD_ADD, x + y);
            BINARY_CASE(INFOLD_SUB, x - y);
            BINARY_CASE(INFOLD_MUL, x *y);
            BINARY_CASE(INFOLD_DIV, x / y);
            BINARY_CASE(INFOLD_MIN, v_nan_either(x, y, v_min(y, x)));
            BINARY_CASE(INFOLD_MAX, v_nan_either(x, y, v_max(y, x)));
            BINARY_CASE(INFOLD_PRELU_SLOPE, v_sel(v_lt(x, v_set1(0.0f)), x *y, x));
        case INFOLD_POW: /* squares only: other powers have no vector form */
            if (!sb && b[0] == 2.0f) {
                BINARY_ROW(VEC, ONE_B, ((void)y, x *x))
                return;
            }
            break;
        default: break;
        }
    }
    for (int64_t i = 0; i < n; i++) out[i * so] = binary_scalar(op, a[i * sa], b[i * sb]);
}

static void binary_run(infold_binary op, int64_t rows, int64_t n, const float *a, const int64_t sa[2], const float *b,
                       const int64_t sb[2], float *out, const int64_t so[2]) {
    for (int64_t r = 0; r < rows; r++)
        binary_row(op, n, a + r * sa[0], sa[1], b + r * sb[0], sb[1], out + r * so[0], so[1]);
}

/* Few rows (the colour planes of an input image): all of them side by side, a column of the source at a time. */
static inline __attribute__((always_inline)) void interleave(const int rows, int64_t cols, const float *src, int64_t src_ld,
                                                             float *restrict dst, int64_t dst_ld) {
    for (int64_t c = 0; c < cols; c++)
        for (int r = 0; r < rows; r++) dst[c * dst_ld + r] = src[r * src_ld + c];
}

/* In the compilers' own vectors of 4, which every CPU has shuffles for. */
typedef float v4 __attribute__((vector_size(16)));
#ifdef __clang__
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (vi4){i, j, k, l})
typedef int32_t vi4 __attribute__((vector_size(16)));
#endif

static inline void transpose_4x4(const float *src, int64_t src_ld, float *dst, int64_t dst_ld) {
    v4 a, b, c, d;
    memcpy(&a, src, sizeof a);
    memcpy(&b, src + src_ld, sizeof b);
    memcpy(&c, src + 2 * src_ld, sizeof c);
    memcpy(&d, src + 3 * src_ld, sizeof d);
    const v4 ab_low = PICK(a, b, 0, 4, 1, 5), ab_high = PICK(a, b, 2, 6, 3, 7);
    const v4 cd_low = PICK(c, d, 0, 4, 1, 5), cd_high = PICK(c, d, 2, 6, 3, 7);
    a = PICK(ab_low, cd_low, 0, 1, 4, 5);
    b = PICK(ab_low, cd_low, 2, 3, 6, 7);
    c = PICK(ab_high, cd_high, 0, 1, 4, 5);
    d = PICK(ab_high, cd_high, 2, 3, 6, 7);
    memcpy(dst, &a, sizeof a);
    memcpy(dst + dst_ld, &b, sizeof b);
    memcpy(dst + 2 * dst_ld, &c, sizeof c);
    memcpy(dst + 3 * dst_ld, &d, sizeof d);
}

/* Two rows, element by element in turn: channels shuffled between two groups. */
static inline void zip(int64_t cols, const float *a, const float *b, float *restrict dst) {
    int64_t c = 0;
    for (; c + 4 <= cols; c += 4) {
        v4 x, y;
        memcpy(&x, a + c, sizeof x);
        memcpy(&y, b + c, sizeof y);
        const v4 low = PICK(x, y, 0, 4, 1, 5), high = PICK(x, y, 2, 6, 3, 7);
        memcpy(dst + 2 * c, &low, sizeof low);
        memcpy(dst + 2 * c + 4, &high, sizeof high);
    }
    for (; c < cols; c++) {
        dst[2 * c] = a[c];
        dst[2 * c + 1] = b[c];
    }
}

static void transpose_run(int64_t rows, int64_t cols, const float *src, int64_t src_ld, float *dst, int64_t dst_ld) {
    if (rows == 3 && dst_ld == 3) {
        interleave(3, cols, src, src_ld, dst, 3);
        return;
    }
    if (rows == 2 && dst_ld == 2) {
        zip(cols, src, src + src_ld, dst);
        return;
    }
    if (rows < 4) {
        interleave((int)rows, cols, src, src_ld, dst, dst_ld);
        return;
    }
    enum { B = 16 }; /* a 16 x 16 block touches 16 + 16 cache lines, each of them fully */
    for (int64_t r0 = 0; r0 < rows; r0 += B)
        for (int64_t c0 = 0; c0 < cols; c0 += B) {
            const int64_t r1 = r0 + B < rows ? r0 + B : rows, c1 = c0 + B < cols ? c0 + B : cols;
            int64_t c = c0;
            for (; c + 4 <= c1; c += 4) {
                int64_t r = r0;
                for (; r + 4 <= r1; r += 4) transpose_4x4(src + r * src_ld + c, src_ld, dst + c * dst_ld + r, dst_ld);
                for (; r < r1; r++)
                    for (int i = 0; i < 4; i++) dst[(c + i) * dst_ld + r] = src[r * src_ld + c + i];
            }
            for (; c < c1; c++)
                for (int64_t r = r0; r < r1; r++) dst[c * dst_ld + r] = src[r * src_ld + c];
        }
}
