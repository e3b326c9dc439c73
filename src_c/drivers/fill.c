/* Constant fill of a strided block of rows, of elements of any type; the planner uses it for zero borders and for Pad. */
#include "drivers/check.h"
#include "drivers/parallel.h"

enum { D = INFOLD_MAX_DIMS };

typedef struct {
    int64_t shape[D], out_stride[D];
    int64_t item, bits; /* bytes of an element: 1, 2, 4 or 8; the element's */
} fill_params;

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    (void)kernels;
    const fill_params *p = params;
    CHECK(p->item == 1 || p->item == 2 || p->item == 4 || p->item == 8, INFOLD_EPARAM);
    return span_fits(span_repeat(span_of_run(1), D, p->shape, p->out_stride), &e[0], p->item) ? INFOLD_OK : INFOLD_EBOUNDS;
}

typedef struct {
    const fill_params *p;
    char *out;
} job;

#define FILL(T)                                                                                                         \
    {                                                                                                                   \
        typedef T any __attribute__((aligned(1), may_alias)); /* a compiled file may put rows at any byte */            \
        any *x = (any *)(void *)out;                                                                                    \
        if (s == 1)                                                                                                     \
            for (int64_t i = 0; i < n; i++) x[i] = (T)p->bits;                                                          \
        else                                                                                                            \
            for (int64_t i = 0; i < n; i++) x[i * s] = (T)p->bits;                                                      \
    }                                                                                                                   \
    break

static void rows(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const fill_params *p = j->p;
    const int64_t n = p->shape[D - 1], s = p->out_stride[D - 1];
    for (int64_t at = begin; at < end; at++) {
        int64_t rest = at;
        char *out = j->out;
        for (int i = D - 2; i >= 0; i--) {
            out += rest % p->shape[i] * p->out_stride[i] * p->item;
            rest /= p->shape[i];
        }
        switch (p->item) {
        case 1: FILL(uint8_t);
        case 2: FILL(uint16_t);
        case 4: FILL(uint32_t);
        default: FILL(uint64_t);
        }
    }
}

static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const fill_params *p = params;
    const job j = {p, args[0]};
    int64_t count = 1;
    for (int i = 0; i < D - 1; i++) count *= p->shape[i];
    infold_parallel(ctx, count, 1 + 8192 / (p->shape[D - 1] + 1), rows, &j);
}

const infold_op infold_op_fill = {
    .name = "fill",
    .params = "shape[6] out_stride[6] item bits",
    .args = "out",
    .params_size = sizeof(fill_params),
    .check = check,
    .run = run,
};
