/* The process's one pool of threads. A call offers each worker its piece through a pair of gates, each on cache lines of its own:
 * no counter is shared by all. Who waits spins for a moment, since the next step of a plan follows at once, and then sleeps.
 *
 * CPUs are not always equally fast, nor there at once. So a piece is cut into tickets: its owner takes them from the front, a
 * quarter of what is left at a time, and who has done his own takes from the back of his neighbours'. A worker that is not there
 * when everything else is done is not waited for: the caller withdraws the offer and does that piece, too.
 *
 * One call has the pool at a time; whoever finds it taken does all of its work itself, with the same result. */
#define _GNU_SOURCE /* sched_getaffinity, pthread_atfork */

#include "drivers/parallel.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#if defined(__linux__)
#include <sched.h>
#else
#include <unistd.h>
#endif

enum { MAX_PIECES = 256, SPINS = 4096 /* some 100 microseconds */, STACK = 1 << 20 };
enum { SHARE = 4 };      /* of the tickets left, the part that is taken at once: much at first, single ones where the ends meet */
enum { NEIGHBOURS = 3 }; /* whose tickets a thread looks for when it has done its own */

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

/* A number that one thread sets and one other waits for. */
typedef struct {
    _Alignas(2 * INFOLD_ALIGN) atomic_uint value;
    atomic_bool sleeper;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
} gate;

static void gate_init(gate *g) {
    atomic_init(&g->value, 0);
    atomic_init(&g->sleeper, false);
    pthread_mutex_init(&g->mutex, NULL);
    pthread_cond_init(&g->changed, NULL);
}

/* Either this sees the sleeper, or the sleeper, which looks again after it has said so, sees the value. */
static void gate_set(gate *g, unsigned value) {
    atomic_store(&g->value, value);
    if (!atomic_load(&g->sleeper)) return;
    pthread_mutex_lock(&g->mutex);
    pthread_cond_signal(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}

static void gate_wait(gate *g, unsigned value, int spins) {
    for (int i = 0; i < spins; i++, relax())
        if (atomic_load_explicit(&g->value, memory_order_acquire) == value) return;
    pthread_mutex_lock(&g->mutex);
    atomic_store(&g->sleeper, true);
    while (atomic_load(&g->value) != value) pthread_cond_wait(&g->changed, &g->mutex);
    atomic_store(&g->sleeper, false);
    pthread_mutex_unlock(&g->mutex);
}

typedef struct {
    infold_body body;
    const void *arg;
    int64_t count, pieces, grain;
    int spins; /* 0 where threads must share CPUs: who spins there keeps another from working */
} job;

/* The tickets of a piece that nobody has taken: [low half, high half). */
typedef struct {
    _Alignas(2 * INFOLD_ALIGN) atomic_uint_least64_t left;
} ticket_book;

static struct {
    atomic_flag taken;
    job job;
    int64_t cpus, workers; /* workers: threads that exist, besides the callers; worker i has piece i + 1 */
    ticket_book books[MAX_PIECES];
    struct {
        gate go, done; /* 1: work is offered; the worker has done it */
    } slots[MAX_PIECES];
} pool = {.taken = ATOMIC_FLAG_INIT};

/* A piece, and the units of each of its tickets: a multiple of the grain. */
typedef struct {
    int64_t begin, end, ticket;
} span;

static span piece(const job *j, int64_t t) {
    const span s = {infold_cut(j->count, j->pieces, t), infold_cut(j->count, j->pieces, t + 1), 0};
    const int64_t least = (s.end - s.begin + INFOLD_TICKETS - 1) / INFOLD_TICKETS;
    return (span){s.begin, s.end, (least + j->grain - 1) / j->grain * j->grain};
}

/* Do a piece's tickets from its front, or from its back, until none is left. */
static void work_off(const job *j, int64_t t, bool front, int64_t thread) {
    const span s = piece(j, t);
    atomic_uint_least64_t *left = &pool.books[t].left;
    for (uint_least64_t v = atomic_load(left);;) {
        const uint_least64_t first = v & UINT32_MAX, end = v >> 32;
        if (first >= end) return;
        const uint_least64_t some = (end - first + SHARE - 1) / SHARE;
        if (!atomic_compare_exchange_weak(left, &v, front ? v + some : v - (some << 32))) continue;
        const int64_t begin = s.begin + (int64_t)(front ? first : end - some) * s.ticket, size = (int64_t)some * s.ticket;
        j->body(j->arg, begin, s.end - begin < size ? s.end : begin + size, thread);
        v = atomic_load(left);
    }
}

static void take_part(const job *j, int64_t thread) {
    work_off(j, thread, true, thread);
    for (int64_t i = 1; i <= NEIGHBOURS && i < j->pieces; i++) work_off(j, (thread + i) % j->pieces, false, thread);
}

/* Whether the offer was still there. */
static bool accept(gate *go) {
    unsigned offered = 1;
    return atomic_compare_exchange_strong(&go->value, &offered, 0);
}

static void *work(void *argument) {
    const int64_t slot = (int64_t)(intptr_t)argument;
    int spins = 0;
    fesetenv(FE_DFL_ENV); /* not what its creator had set, which may flush denormals */
    for (;;) {
        gate_wait(&pool.slots[slot].go, 1, spins);
        if (!accept(&pool.slots[slot].go)) continue;
        spins = pool.job.spins;
        take_part(&pool.job, slot + 1);
        gate_set(&pool.slots[slot].done, 1);
    }
    return NULL;
}

static int64_t usable_cpus(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    return INT64_MAX; /* more than a set holds */
#else
    return sysconf(_SC_NPROCESSORS_ONLN);
#endif
}

/* Start workers until there are as many as asked for, or the system refuses. Signals are for the threads of the program, but for
 * those that a thread's own instruction raises: blocked, they would end the process without a word. */
static void grow(int64_t workers) {
    static const int own[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
    pthread_attr_t detached;
    sigset_t all, before;
    pool.cpus = usable_cpus();
    sigfillset(&all);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&all, own[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, STACK);
    for (pthread_t thread; pool.workers < workers; pool.workers++) {
        gate_init(&pool.slots[pool.workers].go);
        gate_init(&pool.slots[pool.workers].done);
        if (pthread_create(&thread, &detached, work, (void *)(intptr_t)pool.workers)) break;
    }
    pthread_attr_destroy(&detached);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void infold_parallel(const infold_ctx *ctx, int64_t count, int64_t grain, infold_body body, const void *arg) {
    if (count <= 0) return;
    if (grain < 1) grain = 1;
    job j = {body, arg, count, (count - 1) / grain + 1, grain, 0};
    if (j.pieces > ctx->threads) j.pieces = ctx->threads;
    if (j.pieces > MAX_PIECES) j.pieces = MAX_PIECES;
    if (j.pieces <= 1 || atomic_flag_test_and_set_explicit(&pool.taken, memory_order_acquire)) {
        body(arg, 0, count, 0);
        return;
    }
    if (pool.workers < j.pieces - 1) grow(j.pieces - 1);
    if (j.pieces > pool.workers + 1) j.pieces = pool.workers + 1;
    j.spins = j.pieces <= pool.cpus ? SPINS : 0;
    pool.job = j;
    for (int64_t t = 0; t < j.pieces; t++) {
        const span s = piece(&j, t);
        const int64_t tickets = (s.end - s.begin + s.ticket - 1) / s.ticket;
        atomic_store_explicit(&pool.books[t].left, (uint_least64_t)tickets << 32, memory_order_relaxed);
    }
    for (int64_t i = 0; i < j.pieces - 1; i++) gate_set(&pool.slots[i].go, 1);
    take_part(&j, 0);
    for (int64_t i = 0; i < j.pieces - 1; i++) {
        if (accept(&pool.slots[i].go)) {
            work_off(&j, i + 1, true, 0);
            continue;
        }
        gate_wait(&pool.slots[i].done, 1, j.spins);
        atomic_store_explicit(&pool.slots[i].done.value, 0, memory_order_relaxed);
    }
    atomic_flag_clear_explicit(&pool.taken, memory_order_release);
}

/* No worker exists in a forked child, and a call of another thread may have been under way. */
static void forget(void) {
    pool.workers = 0;
    atomic_flag_clear(&pool.taken);
}

void infold_survive_fork(void) { pthread_atfork(NULL, NULL, forget); }
