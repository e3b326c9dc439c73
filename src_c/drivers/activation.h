/* How a driver applies an activation: as a clamp in registers, or, where it is none, late, in a sweep over what was stored. */
#ifndef INFOLD_ACTIVATION_H
#define INFOLD_ACTIVATION_H

#include <math.h>
#include <stdbool.h>

#include "abi.h"

typedef struct {
    float lo, hi; /* -inf and +inf where the activation is no clamp */
    bool late;
} infold_activation;

static inline infold_activation activation_of(int64_t act, double a, double b) {
    const bool relu = act == INFOLD_RELU, clip = act == INFOLD_CLIP;
    return (infold_activation){.lo = relu ? 0.0f : clip ? (float)a : -INFINITY, .hi = clip ? (float)b : INFINITY,
                               .late = !relu && !clip && act != INFOLD_IDENTITY};
}

#endif
