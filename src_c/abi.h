/* The contract between the planner (Python), the drivers and the kernels.
 *
 * An operation is a record `infold_op`: a driver with a parameter struct whose fields are described by a string, so that the
 * planner packs parameters by name and a mistyped field is an error there. Tensors reach a driver as bare pointers: strides,
 * extents and offsets are parameters, counted in elements unless a name says bytes. Every operation has a `check` that proves,
 * once per plan, that the addresses its parameters describe lie inside the buffers it was given. */
#ifndef INFOLD_ABI_H
#define INFOLD_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    INFOLD_OK = 0,
    INFOLD_EPARAM = 1,    /* a parameter is outside its legal range */
    INFOLD_EBOUNDS = 2,   /* parameters describe an address outside a buffer */
    INFOLD_EMISSING = 3,  /* a required buffer was not given */
} infold_status;

#define INFOLD_MAX_ARGS 12
#define INFOLD_MAX_DIMS 6
#define INFOLD_MAX_LANES 16
#define INFOLD_ALIGN 64 /* bytes: one cache line, one AVX-512 vector; every arena buffer starts on it */

/* Activations, by number, for epilogues and the unary operation. a and b are the two scalar parameters. */
#define INFOLD_ACTS(X)                                                                                                  \
    X(IDENTITY) X(RELU) X(CLIP) X(LEAKY_RELU) X(PRELU) X(SIGMOID) X(HARD_SIGMOID) X(HARD_SWISH) X(SILU) X(GELU)         \
    X(GELU_TANH) X(TANH) X(ELU) X(SELU) X(CELU) X(SOFTPLUS) X(SOFTSIGN) X(MISH) X(THRESHOLDED_RELU) X(EXP) X(LOG)       \
    X(SQRT) X(RECIPROCAL) X(ABS) X(NEG) X(FLOOR) X(CEIL) X(ROUND) X(ERF) X(SIGN) X(SQUARE) X(LINEAR) X(SCALED_TANH)

typedef enum {
#define X(name) INFOLD_##name,
    INFOLD_ACTS(X)
#undef X
    INFOLD_ACT_COUNT
} infold_act;

#define INFOLD_BINARIES(X) X(ADD) X(SUB) X(MUL) X(DIV) X(MIN) X(MAX) X(POW) X(PRELU_SLOPE)

typedef enum {
#define X(name) INFOLD_##name,
    INFOLD_BINARIES(X)
#undef X
    INFOLD_BINARY_COUNT
} infold_binary;

/* Reductions, by the names of ONNX's Reduce operators. */
#define INFOLD_REDUCTIONS(X) X(SUM) X(MEAN) X(MAX) X(MIN) X(PROD) X(SUM_SQUARE) X(L1) X(L2) X(LOG_SUM) X(LOG_SUM_EXP)

typedef enum {
#define X(name) INFOLD_REDUCE_##name,
    INFOLD_REDUCTIONS(X)
#undef X
    INFOLD_REDUCTION_COUNT
} infold_reduction;

/* Memory that will be wanted: two vectors at `at`, the next two `step` floats behind them, ...; for the driver, elements from there to
 * what the next panel fetches. */
typedef struct {
    const float *at;
    int64_t step, panel;
} infold_ahead;

enum { INFOLD_AHEADS = 8, INFOLD_AHEAD_ROWS = 16 };

/* One micro-kernel call: C[i][0..n) = clamp(sum_t sum_k A[i][tap[t] + k] * B[t][k][0..n) + bias + R[i]), i < m.
 * A rows need no relation to one another: a tile may span image rows. B is packed panel-major, zero-padded to NR columns. */
typedef struct {
    const float *const *a; /* m row pointers */
    float *const *c;       /* m row pointers */
    const float *const *r; /* m row pointers of the residual, or NULL */
    const int64_t *tap;    /* element offsets added to every a[i] */
    int64_t taps, k;
    int64_t chunk;     /* products added up in one float32 chain; longer sums are sums of chunks, whose error grows far slower */
    int64_t column;    /* first column of this panel: added to every c[i] and r[i] */
    const float *b;    /* taps * k rows of `width` floats, 64-byte aligned */
    const float *next; /* what is fetched with each row of B, as many floats, if that is not B itself, some rows ahead; or NULL */
    int64_t next_step; /* from one row's to the next one's */
    const float *bias; /* at least `width` floats */
    int64_t n;         /* live columns, 1..width */
    float lo, hi;      /* clamp; -inf/+inf for none */
    infold_ahead ahead[INFOLD_AHEADS]; /* fetched in turn, a step with each of INFOLD_AHEAD_ROWS rows of B, or of those left in a chunk */
    int64_t aheads;
} infold_tile;

typedef void (*infold_gemm_fn)(const infold_tile *);

/* Where a tile of sums goes, and what happens to them on the way; the fields are those of infold_tile. Rows of bf16 numbers are in
 * c16 and r16 instead: r16 is widened, what goes to c16 rounded. */
typedef struct {
    float *const *c;
    const float *const *r;
    int64_t column;
    const float *bias;
    int64_t n;
    float lo, hi;
    uint16_t *const *c16;
    const uint16_t *const *r16;
} infold_store;

/* The same product of bf16 numbers: every float of A and B is a sum of `terms` bf16 numbers (its planes, the largest first), and the
 * products of planes i and j with i + j < terms are added up in float32. */
typedef struct {
    const uint16_t *const *a; /* m row pointers, as in infold_tile; kernels that are not `anywhere` want a[i] = a[0] + i * a_row,
                                 readable up to a multiple of INFOLD_BF16_ROWS rows, and a single tap */
    int64_t a_row, a_plane;  /* elements */
    const int64_t *tap;
    int64_t taps, k;         /* k: numbers under each tap, in each plane; a multiple of the kernels' depth_step */
    const uint16_t *b;       /* a plane: taps * k / 2 rows of INFOLD_BF16_COLUMNS pairs, those of row 2k and of row 2k + 1 */
    int64_t b_plane;
    int64_t terms;           /* 1 to INFOLD_BF16_TERMS */
    int64_t height;          /* what `begin` was given */
    /* Kernels that are not `anywhere` take numbers [from, to) alone. With fewer than INFOLD_BF16_TERMS terms these may be a block of the
     * depth, which begins at a multiple of INFOLD_BF16_BLOCK: its sums go on from `sums`, INFOLD_BF16_ROWS x INFOLD_BF16_COLUMNS on a line
     * of the cache, and remain there until the last block. */
    int64_t from, to;
    float *sums;             /* or NULL: the only block */
    infold_store out;
} infold_bf16_tile;

enum { INFOLD_BF16_COLUMNS = 32, INFOLD_BF16_DEPTH = 32, INFOLD_BF16_ROWS = 32, INFOLD_BF16_TERMS = 3, INFOLD_BF16_BLOCK = 64 };

/* Depthwise: out[i * out_step + c] = clamp(sum_t in[i * in_step + tap[t] + c] * w[t][c] + bias[c]), c < channels, i < m <=
 * INFOLD_DW_MR. Taps come in runs of `run`, each in_step behind the one before: neighbouring pixels share what they read. A `window` (1 or
 * 2; 0: none) is one of 3x3 taps, evenly spaced both ways, that moves by so many taps: it has any m >= 1, and also the `rows` of output
 * out_row apart, each under the window so many rows of taps lower.
 * group > 1: a channel reads all of its group's channels, a power of two that fills or divides a vector; of each run the weights of
 * the group's first channel come first. Products are summed in chains of whole runs, `chunk` of them if a run has not more; m <=
 * `grouped`, run 1 or 3, no window. */
typedef struct {
    const void *in; /* the numbers of an image: float32 or bf16, as the kernels have it */
    void *out;
    float *sums; /* bf16 kernels: float32 goes here, out_step and out_row in its elements, in the place of `out`; or NULL */
    int64_t in_step, out_step, out_row;
    const int64_t *tap;
    int64_t taps, run, channels, m, window, rows, group, chunk;
    const float *w; /* [taps][group][channels rounded up to a vector] */
    int64_t w_stride;
    const float *bias;
    float lo, hi;
} infold_dw_tile;

typedef struct {
    void (*run)(const infold_dw_tile *);
    /* The most of a tile: pixels without a window, rows with one, pixels of groups; as many sums as the registers hold. */
    int64_t pixels, rows, grouped;
} infold_depthwise;

/* Winograd: one tile of an image into the transformed domain and back (kernels/winograd.h). A tile is `side` x `side` output
 * pixels and the (side + 2) x (side + 2) input pixels under them; position (i, j) of the transformed tile is
 * `position` * (i * (side + 2) + j) elements from its first. */
typedef struct {
    const void *in;              /* pixel (0, 0) of the image, whose numbers are those of infold_dw_tile */
    int64_t size[2], step[2];    /* its height and width; elements from row to row and from pixel to pixel */
    int64_t at[2];               /* the tile's first pixel; pixels outside the image are zero */
    float *v;
    int64_t position, channels;
    const double *point;         /* the interpolation points are 0, +-point[0] (, +-point[1] if side is 4), infinity */
} infold_winograd_in;

typedef struct {
    const float *m;
    int64_t position, channels;
    const double *point;
    const float *bias;           /* at least `channels` floats, as are r and out under each pixel */
    const void *r;               /* the residual, or NULL; of the same numbers as `out` */
    int64_t r_step[2];
    void *out;
    float *sums;                 /* as in infold_dw_tile */
    int64_t step[2], live[2];    /* elements from row to row and from pixel to pixel; rows and columns to store, up to side */
    float lo, hi;
} infold_winograd_out;

enum { INFOLD_WINOGRAD_2, INFOLD_WINOGRAD_4, INFOLD_WINOGRAD_SIDES }; /* the sides 2 and 4 */

typedef struct {
    int64_t mr, m_step;      /* the most rows at once, and the most in a tile: mr / m_step tiles, one above the other. mr <= INFOLD_BF16_ROWS */
    int64_t depth_step;      /* divides INFOLD_BF16_DEPTH */
    bool anywhere;           /* reads rows of A that lie anywhere, under several taps */
    double macs_per_cycle;   /* multiply-adds of the instruction; 0: emulated, never the fastest */
    void (*begin)(int64_t height), (*end)(void); /* around a thread's tiles; height: their rows, up to m_step */
    void (*gemm)(const infold_bf16_tile *, int64_t m); /* 1 <= m <= mr / m_step * height */
    /* n floats as sums of `terms` bf16 numbers, the planes `plane` elements apart */
    void (*split)(int64_t n, const float *x, int64_t terms, uint16_t *out, int64_t plane);
    void (*widen)(int64_t n, const uint16_t *x, float *out);
    /* As in infold_kernels, with images of bf16 numbers. `act` makes them of float32, as accurately as they are; `depthwise`
     * and `winograd_out` leave float32 in `sums` if that is given. */
    void (*act)(infold_act act, int64_t rows, int64_t n, const float *src, int64_t src_row, uint16_t *dst, int64_t dst_row,
                const float *w, float a, float b);
    void (*affine)(int64_t rows, int64_t n, const void *x, int64_t x_row, const float *scale, const float *shift, int64_t s_row,
                   int64_t s_elem, float lo, float hi, void *out, int64_t out_row);
    infold_depthwise depthwise;
    void (*winograd_in[INFOLD_WINOGRAD_SIDES])(const infold_winograd_in *);
    void (*winograd_out[INFOLD_WINOGRAD_SIDES])(const infold_winograd_out *);
    void (*pool_max)(int64_t channels, int64_t taps, const int64_t *tap, int64_t pixels, const void *in, int64_t in_step, void *out,
                     int64_t out_step);
    void (*pool_sum)(int64_t channels, int64_t taps, const int64_t *tap, int64_t pixels, const void *in, int64_t in_step, void *out,
                     int64_t out_step, float scale);
    void (*reduce_columns)(infold_reduction kind, int64_t n, int64_t taps, const int64_t *tap, const void *in, const float *shift,
                           float *acc, float *comp);
    float (*peak)(int64_t iterations); /* the instruction alone, `peak_macs` multiply-adds an iteration */
    int64_t peak_macs;
} infold_bf16;

/* What a normalisation does to x, before scale and shift: CENTERED x - center, GATED x * sigmoid(v x),
 * BOUNDED x / max(floor, v x + center). */
typedef enum { INFOLD_NORM_CENTERED, INFOLD_NORM_GATED, INFOLD_NORM_BOUNDED } infold_norm_form;

/* From sums to numbers (kernels/norm.h): s = sum / divisor; d = sqrt(s + epsilon) + offset, or s + offset if `power` is 1. */
typedef struct {
    infold_norm_form form;
    int64_t power;  /* 0: x - mean; 1, 2: x itself */
    bool inverse;   /* spread is 1 / d instead of s */
    double divisor, epsilon, offset;
} infold_norm_how;

/* The numbers of one call of `normalize`: clamp((form(x) * scale + shift) * gamma + beta). */
typedef struct {
    bool row;                            /* center, scale and shift are by tap, else by column */
    const float *center, *scale, *shift;
    bool each;                           /* v and floor are by column even so */
    const float *v, *floor;
    const float *gamma, *beta; /* by column, with `row` only; or NULL */
    float lo, hi;
    int64_t ahead; /* elements from one that is read to one that will be soon */
} infold_norm_by;

#define INFOLD_DW_MR 16
#define INFOLD_MAX_MR 14
#define INFOLD_LRN_REACH 64
#define INFOLD_RUN_BLOCK 2048 /* elements that `moments_run` merges at once, while as many behind them come nearer */
#define INFOLD_SHORT_ROW 1024
#define INFOLD_REDUCE_BLOCK 32 /* elements summed naively before the sum joins a compensated one */

typedef struct infold_kernels {
    const char *name;
    int64_t lanes; /* floats in a vector */
    int64_t mr;    /* rows of a full micro-kernel */
    int64_t nr;    /* columns of a panel: two vectors */
    infold_gemm_fn gemm[2][INFOLD_MAX_MR]; /* [vectors - 1][m - 1] */
    float (*fma_peak)(int64_t iterations); /* 2 * mr vector multiply-adds an iteration; for measuring the machine */
    infold_depthwise depthwise;
    void (*winograd_in[INFOLD_WINOGRAD_SIDES])(const infold_winograd_in *);
    void (*winograd_out[INFOLD_WINOGRAD_SIDES])(const infold_winograd_out *);
    /* dst[i] = act(src[i]) for rows of n; w: PReLU's slopes, the same for each row, or NULL; dst may be src */
    void (*act)(infold_act act, int64_t rows, int64_t n, const float *src, int64_t src_row, float *dst, int64_t dst_row,
                const float *w, float a, float b);
    /* rows x n; strides in elements: {row, element} of each operand; element strides are 0 or 1 except in the slow path */
    void (*binary)(infold_binary op, int64_t rows, int64_t n, const float *a, const int64_t sa[2], const float *b,
                   const int64_t sb[2], float *out, const int64_t so[2]);
    /* out = clamp(x * scale + shift); element stride of x and out 1, of scale/shift 0 or 1 */
    void (*affine)(int64_t rows, int64_t n, const void *x, int64_t x_row, const float *scale, const float *shift,
                   int64_t s_row, int64_t s_elem, float lo, float hi, void *out, int64_t out_row);
    /* dst[c * dst_ld + r] = src[r * src_ld + c] */
    void (*transpose)(int64_t rows, int64_t cols, const float *src, int64_t src_ld, float *dst, int64_t dst_ld);
    /* out[i * out_step + c] = max over taps of in[i * in_step + tap[t] + c], i < pixels */
    void (*pool_max)(int64_t channels, int64_t taps, const int64_t *tap, int64_t pixels, const void *in, int64_t in_step, void *out,
                     int64_t out_step);
    /* out[i * out_step + c] = scale * sum over taps of in[i * in_step + tap[t] + c] */
    void (*pool_sum)(int64_t channels, int64_t taps, const int64_t *tap, int64_t pixels, const void *in, int64_t in_step, void *out,
                     int64_t out_step, float scale);
    /* out[c] = sum over taps of weight[t] * in[tap[t] + c] */
    void (*pool_weighted)(int64_t channels, int64_t taps, const int64_t *tap, const float *weight, const float *in, float *out);
    /* acc[c] joins in[tap[t] + c] for every tap, c < n, by SUM, MAX, MIN, PROD, SUM_SQUARE, L1 or LOG_SUM_EXP (here: the sum of
     * exp(x - shift[c])). Sums are acc + comp: comp collects what rounding took. taps <= INFOLD_REDUCE_BLOCK */
    void (*reduce_columns)(infold_reduction kind, int64_t n, int64_t taps, const int64_t *tap, const void *in, const float *shift,
                           float *acc, float *comp);
    /* the same over n contiguous elements; partial results of blocks meet in double */
    double (*reduce_run)(infold_reduction kind, int64_t n, const float *x, float shift);
    /* the mean, mean[c] + low[c], and m2[c], the sum of squared deviations from it, extended from `count` to count + taps elements;
     * taps <= INFOLD_REDUCE_BLOCK. Here and below, if not `centered`, the mean is taken for 0 and m2 is the sum of squares */
    void (*moments_columns)(bool centered, int64_t n, int64_t taps, const int64_t *tap, const float *in, int64_t count, float *mean, float *low,
                            float *m2);
    /* the same for n contiguous elements: mean[0] and m2[0], extended from `count` to count + n */
    void (*moments_run)(bool centered, int64_t n, const float *x, int64_t count, double *mean, double *m2);
    /* the same for each row of n elements at in[tap[r]]: mean[r] and m2[r]; for n <= INFOLD_SHORT_ROW, which one chain sums well */
    void (*moments_rows)(bool centered, int64_t rows, int64_t n, const int64_t *tap, const float *in, double *mean, double *m2);
    /* the numbers of n sets of sums: what `normalize` takes, with a gamma and beta of each set, and the spread to give away */
    void (*settle)(const infold_norm_how *how, int64_t n, const double *mean, const double *sum, const float *gamma,
                   const float *beta, float *center, float *scale, float *shift, float *spread);
    /* out[out_tap[t] + c] = form of in[in_tap[t] + c] for every tap and every c < n; stream: past the caches, `out` and the taps
     * are multiples of whole vectors */
    void (*normalize)(infold_norm_form form, bool stream, int64_t n, int64_t taps, const int64_t *in_tap, const int64_t *out_tap,
                      const float *in, const infold_norm_by *by, float *out);
    void (*stream_end)(void); /* what was stored past the caches is there for other threads */
    /* out = x / (bias + scale * sum of the squares from c - before to c + after) ^ beta; neither reach beyond INFOLD_LRN_REACH */
    void (*lrn)(int64_t n, const float *x, float *out, int64_t before, int64_t after, float scale, float bias, float beta);
    /* dst = exp(src - max) / sum, or its logarithm; dst may be src */
    void (*softmax)(int64_t n, const float *src, float *dst, int64_t log);
} infold_kernels;

enum { INFOLD_FAULT_NONE = 0, INFOLD_FAULT_INDEX = 1 };

typedef struct {
    const infold_kernels *kernels;
    const infold_bf16 *bf16;
    int64_t threads; /* >= 1; 1 never enters the pool of threads */
    int64_t *fault;  /* a run that meets an index outside its tensor stays inside, and leaves INFOLD_FAULT_INDEX here */
} infold_ctx;

/* Where an argument's pointer lies inside its buffer. ptr is NULL unless the buffer is a constant. */
typedef struct {
    const void *ptr;
    int64_t before, after; /* bytes that may be touched below and from the pointer on; after = -1: argument absent */
} infold_extent;

typedef struct {
    const char *name;
    const char *params; /* "n[4] taps act lo:f ..." in struct order; every field is 8 bytes (int64 or double) */
    const char *args;   /* "in w bias? out": '?' marks optional */
    size_t params_size;
    infold_status (*check)(const void *params, const infold_extent *args, const infold_kernels *kernels);
    void (*run)(const void *params, void *const *args, const infold_ctx *ctx);
} infold_op;

/* dispatch.c */
const infold_kernels *infold_find_kernels(const char *name); /* NULL result: not on this CPU */
const infold_bf16 *infold_find_bf16(const char *name);
int infold_isa_names(const char **names, int room, int emulated); /* usable here, best first; returns how many */
const infold_op *const *infold_ops(void);                    /* NULL-terminated */
int64_t infold_cache_bytes(int level);                       /* 1, 2, 3; 0 if unknown */

const char *infold_act_name(int act); /* NULL past the last */
const char *infold_binary_name(int op);
const char *infold_reduction_name(int op);
const char *infold_loop_name(int loop); /* of drivers/map.c */

/* drivers/parallel.c */
void infold_survive_fork(void); /* call once: a forked child starts without its parent's thread team */

#endif
