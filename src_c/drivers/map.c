/* Typed maps over strided operands: casts, comparisons, logic, integer arithmetic, choices and copies, for all element types. What
 * a map computes is one line of loops.h; the compiler makes a loop for operands that lie dense, one for a second operand that is a
 * single number, and one for any steps. */
#include <math.h>

#include "drivers/check.h"
#include "drivers/convert.h"
#include "drivers/map.h"
#include "drivers/parallel.h"

enum { D = INFOLD_MAX_DIMS, INPUTS = INFOLD_LOOP_INPUTS, OUT = INPUTS };

static inline int64_t quotient(int64_t a, int64_t b) { return b == 0 ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b; }
static inline int64_t remainder_of(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
static inline int64_t modulus(int64_t a, int64_t b) {
    const int64_t r = remainder_of(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

#define INLINE static inline __attribute__((always_inline))
#define ANYWHERE __attribute__((aligned(1), may_alias)) /* a compiled file may put rows at any byte */
#define AT(S, p, i) (*(const S *)((p) + (i)))

#define LOOP1(name, S, O, expr)                                                                                         \
    INLINE void name##_steps(const infold_row *r, int64_t sa, int64_t so) {                                             \
        typedef S s_any ANYWHERE;                                                                                       \
        typedef O o_any ANYWHERE;                                                                                       \
        for (int64_t i = 0; i < r->n; i++) {                                                                            \
            const S a = AT(s_any, r->in[0], i * sa);                                                                    \
            *(o_any *)(r->out + i * so) = (O)(expr);                                                                    \
        }                                                                                                               \
    }                                                                                                                   \
    static void name(const infold_row *r) {                                                                             \
        if (r->step[0] == sizeof(S) && r->out_step == sizeof(O)) name##_steps(r, sizeof(S), sizeof(O));                 \
        else name##_steps(r, r->step[0], r->out_step);                                                                  \
    }

#define LOOP2(name, S, O, expr)                                                                                         \
    INLINE void name##_steps(const infold_row *r, int64_t sa, int64_t sb, int64_t so) {                                 \
        typedef S s_any ANYWHERE;                                                                                       \
        typedef O o_any ANYWHERE;                                                                                       \
        for (int64_t i = 0; i < r->n; i++) {                                                                            \
            const S a = AT(s_any, r->in[0], i * sa), b = AT(s_any, r->in[1], i * sb);                                   \
            *(o_any *)(r->out + i * so) = (O)(expr);                                                                    \
        }                                                                                                               \
    }                                                                                                                   \
    static void name(const infold_row *r) {                                                                             \
        const bool dense = r->step[0] == sizeof(S) && r->out_step == sizeof(O);                                         \
        if (dense && r->step[1] == sizeof(S)) name##_steps(r, sizeof(S), sizeof(S), sizeof(O));                         \
        else if (dense && r->step[1] == 0) name##_steps(r, sizeof(S), 0, sizeof(O));                                    \
        else name##_steps(r, r->step[0], r->step[1], r->out_step);                                                      \
    }

#define LOOP3(name, C, S, expr)                                                                                         \
    static void name(const infold_row *r) {                                                                             \
        typedef C c_any ANYWHERE;                                                                                       \
        typedef S s_any ANYWHERE;                                                                                       \
        for (int64_t i = 0; i < r->n; i++) {                                                                            \
            const C a = AT(c_any, r->in[0], i * r->step[0]);                                                            \
            const S b = AT(s_any, r->in[1], i * r->step[1]), c = AT(s_any, r->in[2], i * r->step[2]);                   \
            *(s_any *)(r->out + i * r->out_step) = (expr);                                                              \
        }                                                                                                               \
    }

#include "drivers/loops.h"

#undef LOOP1
#undef LOOP2
#undef LOOP3
#define LOOP1(name, S, O, expr) {#name, {sizeof(S), 0, 0, sizeof(O)}, name},
#define LOOP2(name, S, O, expr) {#name, {sizeof(S), sizeof(S), 0, sizeof(O)}, name},
#define LOOP3(name, C, S, expr) {#name, {sizeof(C), sizeof(S), sizeof(S), sizeof(S)}, name},

static const infold_loop table[] = {
#include "drivers/loops.h"
};
enum { LOOPS = sizeof table / sizeof *table };

const infold_loop *infold_loop_at(int64_t index) { return index >= 0 && index < LOOPS ? &table[index] : NULL; }

const char *infold_loop_name(int index) {
    const infold_loop *loop = infold_loop_at(index);
    return loop ? loop->name : NULL;
}

typedef struct {
    int64_t shape[D], stride[INPUTS + 1][D]; /* the last strides are the output's */
    int64_t loop;
} map_params;

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const map_params *p = params;
    const infold_loop *loop = infold_loop_at(p->loop);
    CHECK(loop != NULL, INFOLD_EPARAM);
    for (int i = 0; i <= INPUTS; i++) {
        const int64_t item = loop->item[i];
        if (item && !span_fits(span_repeat(span_of_run(1), D, p->shape, p->stride[i]), &e[i], item)) return INFOLD_EBOUNDS;
    }
    return INFOLD_OK;
}

typedef struct {
    const map_params *p;
    void *const *args;
} job;

static void rows(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const map_params *p = j->p;
    const infold_loop *l = infold_loop_at(p->loop);
    for (int64_t at = begin; at < end; at++) {
        int64_t offset[INPUTS + 1] = {0}, rest = at;
        for (int d = D - 2; d >= 0; d--) {
            for (int i = 0; i <= INPUTS; i++)
                if (l->item[i]) offset[i] += rest % p->shape[d] * p->stride[i][d] * l->item[i];
            rest /= p->shape[d];
        }
        infold_row r = {.n = p->shape[D - 1], .out_step = p->stride[OUT][D - 1] * l->item[OUT], .out = (char *)j->args[OUT] + offset[OUT]};
        for (int i = 0; i < INPUTS && l->item[i]; i++) {
            r.in[i] = (const char *)j->args[i] + offset[i];
            r.step[i] = p->stride[i][D - 1] * l->item[i];
        }
        l->run(&r);
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const map_params *p = params;
    const job j = {p, args};
    int64_t count = 1;
    for (int d = 0; d < D - 1; d++) count *= p->shape[d];
    if (p->shape[D - 1] > 0) infold_parallel(ctx, count, 1 + 32768 / (p->shape[D - 1] + 1), rows, &j);
}

const infold_op infold_op_map = {
    .name = "map",
    .params = "shape[6] a_stride[6] b_stride[6] c_stride[6] out_stride[6] loop",
    .args = "a b? c? out",
    .params_size = sizeof(map_params),
    .check = check,
    .run = run,
};
