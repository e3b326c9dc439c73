/* The process's one pool of threads. A call hands each worker its piece through a pair of gates, each on cache lines of its own:
 * no counter is shared. Who waits spins for a moment, since the next step of a plan follows at once, and then sleeps.
 *
 * One call has the pool at a time; whoever finds it taken does its pieces itself, one after the other, with the same result. */
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

enum { MAX_WORKERS = 255, SPINS = 4096 /* some 100 microseconds */, STACK = 1 << 20 };

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
    int64_t count, pieces;
    int spins; /* 0 where threads must share CPUs: who spins there keeps another from working */
} job;

static void piece(const job *j, int64_t t) {
    j->body(j->arg, infold_cut(j->count, j->pieces, t), infold_cut(j->count, j->pieces, t + 1), t);
}

static struct {
    atomic_flag taken;
    job job;
    int64_t cpus, workers; /* workers: threads that exist, besides the callers */
    struct {
        gate go, done;
        unsigned turn; /* how often the worker was called */
    } slots[MAX_WORKERS];
} pool = {.taken = ATOMIC_FLAG_INIT};

static void *work(void *argument) {
    const int64_t slot = (int64_t)(intptr_t)argument;
    int spins = 0;
    fesetenv(FE_DFL_ENV); /* not what its creator had set, which may flush denormals */
    for (unsigned turn = 1;; turn++) {
        gate_wait(&pool.slots[slot].go, turn, spins);
        spins = pool.job.spins;
        piece(&pool.job, slot + 1);
        gate_set(&pool.slots[slot].done, turn);
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
        pool.slots[pool.workers].turn = 0;
        if (pthread_create(&thread, &detached, work, (void *)(intptr_t)pool.workers)) break;
    }
    pthread_attr_destroy(&detached);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void infold_parallel(const infold_ctx *ctx, int64_t count, int64_t grain, infold_body body, const void *arg) {
    if (count <= 0) return;
    job j = {body, arg, count, grain > 0 ? (count + grain - 1) / grain : count, 0};
    if (j.pieces > ctx->threads) j.pieces = ctx->threads;
    if (j.pieces > MAX_WORKERS + 1) j.pieces = MAX_WORKERS + 1;
    if (j.pieces <= 1) {
        body(arg, 0, count, 0);
        return;
    }
    int64_t helpers = 0;
    const bool mine = !atomic_flag_test_and_set_explicit(&pool.taken, memory_order_acquire);
    if (mine) {
        if (pool.workers < j.pieces - 1) grow(j.pieces - 1);
        helpers = pool.workers < j.pieces - 1 ? pool.workers : j.pieces - 1;
        j.spins = j.pieces <= pool.cpus ? SPINS : 0;
        pool.job = j;
    }
    for (int64_t i = 0; i < helpers; i++) gate_set(&pool.slots[i].go, ++pool.slots[i].turn);
    piece(&j, 0);
    for (int64_t t = helpers + 1; t < j.pieces; t++) piece(&j, t);
    for (int64_t i = 0; i < helpers; i++) gate_wait(&pool.slots[i].done, pool.slots[i].turn, j.spins);
    if (mine) atomic_flag_clear_explicit(&pool.taken, memory_order_release);
}

/* No worker exists in a forked child, and a call of another thread may have been under way. */
static void forget(void) {
    pool.workers = 0;
    atomic_flag_clear(&pool.taken);
}

void infold_survive_fork(void) { pthread_atfork(NULL, NULL, forget); }
