/* The only door to threads: split [0, count) into a piece for each thread. A session of one thread calls straight through. */
#ifndef INFOLD_PARALLEL_H
#define INFOLD_PARALLEL_H

#include "abi.h"

/* Where the part with number `part` of [0, count) begins, if it is cut into even parts. */
static inline int64_t infold_cut(int64_t count, int64_t parts, int64_t part) {
    const int64_t extra = count % parts;
    return part * (count / parts) + (part < extra ? part : extra);
}

typedef void (*infold_body)(const void *arg, int64_t begin, int64_t end, int64_t thread);

/* Pieces are cut further, into as many as this, so that who is done early can take over what another has not begun. */
enum { INFOLD_TICKETS = 128 };

/* grain: the smallest piece worth a thread of its own, in units of count; further cuts are at multiples of it. `body` is called for
 * any part of the count, several times by one thread, whose number is below the session's. */
void infold_parallel(const infold_ctx *ctx, int64_t count, int64_t grain, infold_body body, const void *arg);

#endif
