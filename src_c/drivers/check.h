/* Proving that strided accesses stay inside their buffers. Every sum and product is overflow-checked: the numbers may be
 * hostile. */
#ifndef INFOLD_CHECK_H
#define INFOLD_CHECK_H

#include <stdbool.h>

#include "abi.h"

/* What one step may do, in elements passed or products: minutes. More is a hostile file's, and would never end. */
#define INFOLD_MOST_WORK ((int64_t)1 << 46)

/* Lowest and highest element offset reached so far, and the number of accesses, which strides of zero keep no bound on;
 * `broken` after an overflow or a negative extent. */
typedef struct {
    int64_t low, high, count;
    bool broken, empty;
} infold_span;

static inline infold_span span_times(infold_span s, int64_t count) {
    if (__builtin_mul_overflow(s.count, count, &s.count) || s.count > INFOLD_MOST_WORK) s.broken = true;
    return s;
}

static inline infold_span span_of_run(int64_t elements) {
    const infold_span s = {0, elements > 0 ? elements - 1 : 0, 1, elements < 0, elements == 0};
    return elements > 0 ? span_times(s, elements) : s;
}

/* Repeat the span at strides: shape[i] times stride[i], i < dims. */
static inline infold_span span_repeat(infold_span s, int dims, const int64_t *shape, const int64_t *stride) {
    for (int i = 0; i < dims; i++) {
        if (shape[i] < 0) s.broken = true;
        if (shape[i] <= 0) {
            s.empty = true;
            continue;
        }
        s = span_times(s, shape[i]);
        int64_t reach;
        if (__builtin_mul_overflow(shape[i] - 1, stride[i], &reach)) {
            s.broken = true;
            continue;
        }
        int64_t *end = reach < 0 ? &s.low : &s.high;
        if (__builtin_add_overflow(*end, reach, end)) s.broken = true;
    }
    return s;
}

/* Repeat the span at each of the given offsets (a constant table of taps). */
static inline infold_span span_at(infold_span s, int64_t count, const int64_t *offset) {
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (int64_t i = 0; i < count; i++) {
        if (offset[i] < low) low = offset[i];
        if (offset[i] > high) high = offset[i];
    }
    if (count <= 0) {
        s.empty = true;
        return s;
    }
    if (__builtin_add_overflow(s.low, low, &s.low) || __builtin_add_overflow(s.high, high, &s.high)) s.broken = true;
    return s;
}

static inline bool span_fits(infold_span s, const infold_extent *e, int64_t item_bytes) {
    if (s.broken) return false;
    if (s.empty) return true;
    if (e->after < 0) return false;
    int64_t low, high;
    if (__builtin_add_overflow(s.high, 1, &high) || __builtin_mul_overflow(high, item_bytes, &high)) return false;
    if (__builtin_mul_overflow(s.low, item_bytes, &low)) return false;
    return low >= -e->before && high <= e->after;
}

/* Whether a step that does so much for each access of the span ends. */
static inline bool work_fits(infold_span s, int64_t for_each) { return !span_times(s, for_each).broken; }

static inline bool arg_given(const infold_extent *e) { return e->after >= 0; }

#define CHECK(condition, status)                                                                                        \
    if (!(condition)) return status

#endif
