/* Which kernels this CPU can run. CPUID tells what the chip has, XGETBV what the operating system saves: both must agree. */
#define _DEFAULT_SOURCE /* sysconf names of the caches */

#include <stdbool.h>
#include <string.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "abi.h"

extern const infold_kernels infold_kernels_scalar;
extern const infold_bf16 infold_bf16_dot_emulated, infold_bf16_amx_emulated;

#if defined(__x86_64__)
#include <cpuid.h>

extern const infold_kernels infold_kernels_avx2, infold_kernels_avx512;
extern const infold_bf16 infold_bf16_avx512_bf16, infold_bf16_amx;

static uint64_t enabled_state(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return ((uint64_t)d << 32) | a;
}

static bool has_avx2(void) {
    unsigned a, b, c, d;
    if ((enabled_state() & 0x6) != 0x6) return false; /* XMM and YMM state */
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_FMA) || !(c & bit_AVX) || !(c & bit_F16C)) return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

static bool has_avx512(void) {
    unsigned a, b, c, d;
    const unsigned need = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if (!has_avx2() || (enabled_state() & 0xe6) != 0xe6) return false; /* plus opmask and both halves of ZMM */
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & need) == need;
}

static bool has_avx512_bf16(void) {
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVX512BF16);
}

/* Tiles are 8 KiB that Linux saves only for a process that has asked. */
static bool may_use_tiles(void) {
#if defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
#else
    return false;
#endif
}

static bool has_amx(void) {
    enum { NEED = 1 << 22 | 1 << 24 }; /* AMX-BF16, AMX-TILE */
    unsigned a, b, c, d;
    return has_avx512_bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & NEED) == NEED &&
           (enabled_state() & 0x60000) == 0x60000 && may_use_tiles();
}
#endif

#if defined(__aarch64__)
extern const infold_kernels infold_kernels_neon;
#endif

static bool always(void) { return true; }

/* An instruction set: the float32 kernels and the bf16 kernels that suit it. Best first. */
static const struct {
    const char *name;
    const infold_kernels *kernels;
    const infold_bf16 *bf16;
    bool (*usable)(void);
    bool emulated; /* for tests: never chosen unasked */
} tables[] = {
#if defined(__x86_64__)
    {"amx", &infold_kernels_avx512, &infold_bf16_amx, has_amx, false},
    {"avx512_bf16", &infold_kernels_avx512, &infold_bf16_avx512_bf16, has_avx512_bf16, false},
    {"avx512", &infold_kernels_avx512, &infold_bf16_dot_emulated, has_avx512, false},
    {"avx2", &infold_kernels_avx2, &infold_bf16_dot_emulated, has_avx2, false},
#elif defined(__aarch64__)
    {"neon", &infold_kernels_neon, &infold_bf16_dot_emulated, always, false},
#endif
    {"scalar", &infold_kernels_scalar, &infold_bf16_dot_emulated, always, false},
    {"amx-emulated", &infold_kernels_scalar, &infold_bf16_amx_emulated, always, true},
};
enum { TABLES = sizeof tables / sizeof *tables };

/* Asked once: virtual machines take tens of microseconds for each CPUID. */
static bool usable(int i) {
    static _Atomic signed char answers[TABLES]; /* 0: not asked yet, 1: no, 2: yes */
    if (!answers[i]) answers[i] = (signed char)(1 + tables[i].usable());
    return answers[i] == 2;
}

static int find(const char *name) {
    for (int i = 0; i < TABLES; i++)
        if (!strcmp(name, tables[i].name) && usable(i)) return i;
    return -1;
}

const infold_kernels *infold_find_kernels(const char *name) {
    const int i = find(name);
    return i < 0 ? NULL : tables[i].kernels;
}

const infold_bf16 *infold_find_bf16(const char *name) {
    const int i = find(name);
    return i < 0 ? NULL : tables[i].bf16;
}

int infold_isa_names(const char **names, int room, int emulated) {
    int count = 0;
    for (int i = 0; i < TABLES && count < room; i++)
        if (tables[i].emulated == (emulated != 0) && usable(i)) names[count++] = tables[i].name;
    return count;
}

#define X(name) #name,
const char *infold_act_name(int act) {
    static const char *const names[] = {INFOLD_ACTS(X)};
    return act >= 0 && act < INFOLD_ACT_COUNT ? names[act] : NULL;
}

const char *infold_binary_name(int op) {
    static const char *const names[] = {INFOLD_BINARIES(X)};
    return op >= 0 && op < INFOLD_BINARY_COUNT ? names[op] : NULL;
}

const char *infold_reduction_name(int op) {
    static const char *const names[] = {INFOLD_REDUCTIONS(X)};
    return op >= 0 && op < INFOLD_REDUCTION_COUNT ? names[op] : NULL;
}
#undef X

#define INFOLD_OP(name) extern const infold_op infold_op_##name;
#include "ops.h"
#undef INFOLD_OP

const infold_op *const *infold_ops(void) {
#define INFOLD_OP(name) &infold_op_##name,
    static const infold_op *const ops[] = {
#include "ops.h"
        NULL};
#undef INFOLD_OP
    return ops;
}

static int64_t ask_cache_bytes(int level) {
#if defined(__x86_64__) || defined(__i386__)
    /* what one core can use; sysconf adds up the last caches of all dies of an AMD */
    static const unsigned leaves[] = {0x8000001d, 4}; /* of AMD, of Intel */
    unsigned kind, shape, sets, unused;
    for (int i = 0; i < 2; i++)
        for (unsigned n = 0; __get_cpuid_count(leaves[i], n, &kind, &shape, &sets, &unused) && kind & 31; n++)
            if ((kind & 31) != 2 && (int)(kind >> 5 & 7) == level) /* 2: instructions */
                return (int64_t)((shape >> 22) + 1) * ((shape >> 12 & 1023) + 1) * ((shape & 4095) + 1) * ((int64_t)sets + 1);
#endif
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    const int key = level == 1 ? _SC_LEVEL1_DCACHE_SIZE : level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE;
    const long bytes = sysconf(key);
    return bytes > 0 ? bytes : 0;
#else
    (void)level;
    return 0;
#endif
}

int64_t infold_cache_bytes(int level) {
    enum { LEVELS = 4 };
    static _Atomic int64_t answers[LEVELS]; /* and one, asked once as above: 0: not asked yet */
    if (level < 0 || level >= LEVELS) return 0;
    if (!answers[level]) answers[level] = 1 + ask_cache_bytes(level);
    return answers[level] - 1;
}
