#define _DEFAULT_SOURCE /* pthread_atfork */

#include "drivers/parallel.h"

#include <omp.h>
#include <pthread.h>

static void release_team(void) { omp_pause_resource_all(omp_pause_soft); }

/* libgomp's threads do not exist in a forked child, but its books say they do, and the first parallel region would wait for
 * them for ever. Releasing the team before the fork leaves both sides with clean books. */
void infold_survive_fork(void) { pthread_atfork(release_team, NULL, NULL); }

void infold_parallel(const infold_ctx *ctx, int64_t count, int64_t grain, infold_body body, const void *arg) {
    if (count <= 0) return;
    const int64_t pieces = grain > 0 ? (count + grain - 1) / grain : count;
    const int64_t threads = ctx->threads < pieces ? ctx->threads : pieces;
    if (threads <= 1) {
        body(arg, 0, count, 0);
        return;
    }
    const int64_t share = count / threads, extra = count % threads;
#pragma omp parallel for num_threads((int)threads) schedule(static, 1)
    for (int64_t t = 0; t < threads; t++) {
        const int64_t begin = t * share + (t < extra ? t : extra);
        body(arg, begin, begin + share + (t < extra), t);
    }
}
