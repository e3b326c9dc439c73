/* Indices that the model computes. */
#ifndef INFOLD_FAULT_H
#define INFOLD_FAULT_H

#include "abi.h"

/* The index counted from the front, negative ones from the end; outside -size..size-1 it is a fault of the run, and 0. */
static inline int64_t index_inside(int64_t index, int64_t size, int64_t *fault) {
    if (index < 0) index += size;
    if (index >= 0 && index < size) return index;
    __atomic_store_n(fault, INFOLD_FAULT_INDEX, __ATOMIC_RELAXED);
    return 0;
}

#endif
