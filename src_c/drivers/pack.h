/* What the packings of weights have in common: the matrices they read. */
#ifndef INFOLD_PACK_H
#define INFOLD_PACK_H

#include "drivers/check.h"
#include "drivers/parallel.h"

typedef struct {
    int64_t k[3], k_stride[3]; /* the reduction index, up to three nested dimensions (taps y, x; channel) */
    int64_t columns, column_stride;
    int64_t groups, in_group, out_group; /* independent matrices */
} pack_params;

#define PACK_PARAMS "k[3] k_stride[3] columns column_stride groups in_group out_group"

enum { IN, OUT };

static inline infold_status pack_check(const pack_params *p, const infold_extent *e) {
    const int64_t shape[2] = {p->groups, p->columns}, steps[2] = {p->in_group, p->column_stride};
    CHECK(span_fits(span_repeat(span_repeat(span_of_run(1), 3, p->k, p->k_stride), 2, shape, steps), &e[IN], 4), INFOLD_EBOUNDS);
    CHECK(p->columns >= 0 && p->columns <= INT64_MAX / 2, INFOLD_EPARAM);
    return INFOLD_OK;
}

#endif
