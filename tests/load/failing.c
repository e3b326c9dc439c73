/* Preloaded under Python: makes one chosen allocation of infold's native module fail, and counts what the module holds. Only calls
 * that come out of the module are counted; those of Python, NumPy and the C library go their way. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

static uintptr_t module_begin, module_end;
static atomic_long seen, held;   /* allocations asked for since `failing_at`; blocks and mappings not given back */
static atomic_long chosen = -1;  /* the one that fails; -1: none */

void failing_watch(uintptr_t begin, uintptr_t end) { module_begin = begin, module_end = end; }
void failing_at(long number) { atomic_store(&seen, 0), atomic_store(&chosen, number); }
long failing_seen(void) { return atomic_load(&seen); }
long failing_held(void) { return atomic_load(&held); }

static int ours(const void *caller) { return (uintptr_t)caller >= module_begin && (uintptr_t)caller < module_end; }
static int refused(const void *caller) { return ours(caller) && atomic_fetch_add(&seen, 1) == atomic_load(&chosen); }
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CALLER __builtin_return_address(0)

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void __libc_free(void *);

void *malloc(size_t size) {
    if (refused(CALLER)) return errno = ENOMEM, NULL;
    void *block = __libc_malloc(size);
    if (ours(CALLER) && block) atomic_fetch_add(&held, 1);
    return block;
}

void *calloc(size_t count, size_t size) {
    if (refused(CALLER)) return errno = ENOMEM, NULL;
    void *block = __libc_calloc(count, size);
    if (ours(CALLER) && block) atomic_fetch_add(&held, 1);
    return block;
}

void *realloc(void *old, size_t size) {
    if (refused(CALLER)) return errno = ENOMEM, NULL;
    void *block = __libc_realloc(old, size);
    if (ours(CALLER) && block && !old) atomic_fetch_add(&held, 1);
    return block;
}

void free(void *block) {
    if (ours(CALLER) && block) atomic_fetch_sub(&held, 1);
    __libc_free(block);
}

void *mmap(void *address, size_t length, int protection, int flags, int file, off_t offset) {
    if (refused(CALLER)) return errno = ENOMEM, MAP_FAILED;
    void *mapping = NEXT(mmap)(address, length, protection, flags, file, offset);
    if (ours(CALLER) && mapping != MAP_FAILED) atomic_fetch_add(&held, 1);
    return mapping;
}

void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

int munmap(void *address, size_t length) {
    if (ours(CALLER)) atomic_fetch_sub(&held, 1);
    return NEXT(munmap)(address, length);
}
