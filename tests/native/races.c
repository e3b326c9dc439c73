/* The pool under ThreadSanitizer: callers from several threads at once, all numbers of pieces and threads. Every
 * piece must be done once, and what a body wrote must be there for its caller. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/parallel.h"

enum { CALLS = 400, MOST = 100 };

static void body(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    int64_t *const *done = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) (*done)[i] += i;
}

static void *call(void *seed) {
    const int64_t first = (int64_t)(intptr_t)seed;
    int64_t cells[MOST], *done = cells;
    for (int64_t i = first; i < first + CALLS; i++) {
        const infold_ctx ctx = {.threads = 1 + i % 5};
        const int64_t count = i * 7 % MOST;
        memset(cells, 0, sizeof cells);
        infold_parallel(&ctx, count, 1 + i % 3, body, &done);
        for (int64_t k = 0; k < MOST; k++)
            if (cells[k] != (k < count ? k : 0)) exit(3);
    }
    return NULL;
}

int main(void) {
    pthread_t threads[4];
    call(NULL);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, call, (void *)(intptr_t)(i * 31));
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    puts("done");
    return 0;
}
