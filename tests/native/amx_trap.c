/* AMX on a CPU without it, for tests: executes the instructions that isa/amx.c is compiled to when they raise SIGILL, as the Intel SDM
 * (volume 2, TILE*, LDTILECFG, TDPBF16PS) has them, and counts them. What raises #UD or #GP there ends the process here.
 *
 * It is preloaded (LD_PRELOAD), since it stands for the kernel's arch_prctl, too, and keeps SIGILL when Python asks for it.
 * amx_trap_patch turns the CPUID and XGETBV instructions of one loaded library into UD2, so that this answers in their place: nothing
 * in the library itself can be talked into AMX. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <immintrin.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { TILES = 8, ROWS = 16, BYTES = 64, MAX_SITES = 256, ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
enum { PERMISSION, CONFIGURE, RELEASE, CONFIGURED, ZERO, LOAD, STORE, DOT, ROW, CYCLES, LINE, MISSED, CACHED, OVERLAPPED, COUNTS };

/* CONFIGURED: threads whose tiles are configured now; ROW: rows of products; CYCLES, CACHED, OVERLAPPED: see `pass_time`; LINE: cache lines
 * that tiles are loaded from and stored to; MISSED: those that `miss` says the first-level cache does not hold */
static _Atomic int64_t counts[COUNTS];

static void count(int what, int64_t by) { atomic_fetch_add_explicit(&counts[what], by, memory_order_relaxed); }

void amx_trap_counts(int64_t *out) {
    for (int i = 0; i < COUNTS; i++) out[i] = counts[i];
}

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[TILES], more_bytes[8];
    uint8_t rows[TILES], more_rows[8];
} tile_config;

static _Thread_local struct {
    bool configured;
    tile_config config;
    _Alignas(64) uint8_t tile[TILES][ROWS][BYTES];
} state __attribute__((tls_model("initial-exec")));

static _Noreturn void fault(const char *what, const uint8_t *at) {
    char text[160];
    const int n = snprintf(text, sizeof text, "amx_trap: %s (%02x %02x %02x %02x %02x)\n", what, at[0], at[1], at[2], at[3], at[4]);
    if (write(2, text, (size_t)n) == n) signal(SIGABRT, SIG_DFL);
    abort();
}

/* Bounds on time, per thread: the tile unit starts a product every 16 cycles and adds to a tile 52 cycles after the last product did;
 * a load takes a tile from the first-level cache in 8, usable after 16, a store 16; the second-level cache gives 48 bytes a cycle. (Intel
 * 64 and IA-32 Architectures Optimization Reference Manual, for Sapphire Rapids.) Either all that follows a store waits for it, or
 * nothing does but the next store (`waits`). */
typedef struct {
    int64_t unit, loads, stores, ready[TILES], shown;
} tile_clock;

static int64_t later(int64_t a, int64_t b) { return a > b ? a : b; }

static void pass(tile_clock *c, int shown, bool waits, int what, int tile, int a, int b, int64_t missed) {
    int64_t *ready = c->ready, now = c->shown;
    const int64_t fetch = (missed * 4 + 2) / 3; /* of 64 bytes each */
    if (what == ZERO) ready[tile] = 0;
    if (what == LOAD) c->loads += later(8, fetch), ready[tile] = c->loads + 8;
    if (what == DOT) {
        const int64_t start = later(later(c->unit, ready[tile]), later(ready[a], ready[b]));
        now = c->unit = start + 16;
        ready[tile] = start + 52;
    }
    if (what == STORE) {
        now = c->stores = later(later(c->stores, ready[tile]), waits ? later(c->unit, c->loads) : 0) + later(16, fetch);
        if (waits) c->unit = c->loads = now;
    }
    if (now > c->shown) count(shown, now - c->shown), c->shown = now;
}

static _Thread_local tile_clock clocks[3] __attribute__((tls_model("initial-exec")));

/* CYCLES: all data in the first-level cache, everything waits for stores; CACHED: with what `miss` says; OVERLAPPED: that, and nothing
 * waits. */
static void pass_time(int what, int tile, int a, int b, int64_t missed) {
    pass(&clocks[0], CYCLES, true, what, tile, a, b, 0);
    pass(&clocks[1], CACHED, true, what, tile, a, b, missed);
    pass(&clocks[2], OVERLAPPED, false, what, tile, a, b, missed);
}

/* A model of a thread's first-level cache, 48 KB in 12 ways, which knows of tiles' rows only: the lines of each set, the last used first. */
enum { SETS = 64, WAYS = 12 };
static _Thread_local uintptr_t cache[SETS][WAYS] __attribute__((tls_model("initial-exec")));

static int64_t miss(const char *row) { /* a tile's row lies in one line */
    const uintptr_t line = (uintptr_t)row / BYTES;
    uintptr_t *set = cache[line % SETS];
    int at = 0;
    while (at < WAYS - 1 && set[at] != line) at++;
    const bool missed = set[at] != line;
    memmove(set + 1, set, (size_t)at * sizeof *set);
    set[0] = line;
    return missed;
}

static void need(int tile, const uint8_t *at) {
    if (!state.configured) fault("#UD: tiles are not configured", at);
    if (!state.config.rows[tile] || !state.config.row_bytes[tile]) fault("#UD: this tile is not configured", at);
}

static void let_go(void) {
    if (state.configured) count(CONFIGURED, -1);
    memset(&state, 0, sizeof state);
}

static void configure(const void *from, const uint8_t *at) {
    tile_config c;
    memcpy(&c, from, sizeof c);
    count(CONFIGURE, 1);
    let_go();
    if (c.palette == 0) return;
    static const uint8_t zeros[16];
    if (c.palette != 1) fault("#GP: palette", at);
    if (c.start_row || memcmp(c.reserved, zeros, sizeof c.reserved)) fault("#GP: reserved bytes, or a row to start with", at);
    if (memcmp(c.more_bytes, zeros, sizeof c.more_bytes) || memcmp(c.more_rows, zeros, sizeof c.more_rows)) fault("#GP: tile 8 to 15", at);
    for (int t = 0; t < TILES; t++)
        if (c.rows[t] > ROWS || c.row_bytes[t] > BYTES || !c.rows[t] != !c.row_bytes[t]) fault("#GP: rows or bytes of a tile", at);
    state.config = c;
    state.configured = true;
    count(CONFIGURED, 1);
}

/* TDPBF16PS: for each row, the products of the even and of the odd numbers in a chain each, then their sum, then onto the tile, all with
 * denormals zero on the way in and out, to nearest even. Here these are the instructions of AVX-512 with MXCSR set so. */
__attribute__((target("avx512f"))) static void dot(int sum, int a, int b, const uint8_t *at) {
    const tile_config *c = &state.config;
    need(sum, at), need(a, at), need(b, at);
    if (sum == a || sum == b || a == b) fault("#UD: a tile twice", at);
    if ((c->row_bytes[sum] | c->row_bytes[a] | c->row_bytes[b]) % 4) fault("#UD: bytes of a row", at);
    if (c->rows[sum] != c->rows[a] || c->row_bytes[sum] != c->row_bytes[b] || c->row_bytes[a] / 4 != c->rows[b]) fault("#UD: shapes", at);
    const unsigned flags = _mm_getcsr();
    _mm_setcsr(0x1f80 | 0x8040); /* no exceptions, flush to zero, denormals are zero */
    const __mmask16 live = (__mmask16)((1u << c->row_bytes[sum] / 4) - 1);
    for (int m = 0; m < c->rows[sum]; m++) {
        __m512 even = _mm512_setzero_ps(), odd = even;
        for (int k = 0; k < c->row_bytes[a] / 4; k++) {
            uint32_t pair;
            memcpy(&pair, &state.tile[a][m][4 * k], sizeof pair);
            const __m512i x = _mm512_set1_epi32((int)pair), y = _mm512_load_si512(state.tile[b][k]);
            const __m512i high = _mm512_set1_epi32((int)0xffff0000);
            even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(y, 16)), even);
            odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, high)), _mm512_castsi512_ps(_mm512_and_si512(y, high)), odd);
        }
        float *row = (float *)(void *)state.tile[sum][m];
        _mm512_store_ps(row, _mm512_maskz_add_ps(live, _mm512_load_ps(row), _mm512_add_ps(even, odd)));
    }
    _mm_setcsr(flags);
}

static const int numbered[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* ModRM, SIB and displacement from `p` on. */
typedef struct {
    int mod, reg, rm;
    uint64_t at, index; /* base + displacement; index times scale */
    const uint8_t *end;
} operand;

static operand operand_of(const greg_t *r, const uint8_t *p, int more_index, int more_base) {
    operand o = {.mod = *p >> 6, .reg = *p >> 3 & 7, .rm = *p & 7};
    int base = o.rm;
    bool relative = o.mod == 0 && base == 5;
    p++;
    if (o.mod != 3 && o.rm == 4) {
        const int index = (*p >> 3 & 7) | more_index;
        base = *p & 7;
        if (index != 4) o.index = (uint64_t)r[numbered[index]] << (*p >> 6);
        p++;
    }
    int64_t displacement = 0;
    int32_t wide = 0;
    const bool absolute = !relative && o.mod == 0 && base == 5;
    if (o.mod == 1) displacement = (int8_t)*p++;
    if (o.mod == 2 || relative || absolute) {
        memcpy(&wide, p, sizeof wide);
        displacement = wide;
        p += 4;
    }
    const uint64_t from = relative ? (uint64_t)(uintptr_t)p : absolute || o.mod == 3 ? 0 : (uint64_t)r[numbered[base | more_base]];
    o.at = from + (uint64_t)displacement;
    o.end = p;
    return o;
}

static const uint8_t *execute(const greg_t *r, const uint8_t *at) {
    const int prefix = at[2] & 3, vector = ~at[2] >> 3 & 15, code = at[3]; /* prefix: 0 none, 1 66, 2 F3, 3 F2 */
    const operand o = operand_of(r, at + 4, at[1] & 0x40 ? 0 : 8, at[1] & 0x20 ? 0 : 8);
    char *memory = (char *)(uintptr_t)o.at; /* NOLINT: an address from a register */
    if (at[2] & 0x84 || !(at[1] & 0x80) || (code != 0x5c && vector)) fault("#UD: W, L, R or vvvv", at);
    if (code == 0x5c && prefix == 2 && o.mod == 3 && vector < TILES) {
        dot(o.reg, o.rm, vector, at);
        count(DOT, 1);
        count(ROW, state.config.rows[o.reg]);
        pass_time(DOT, o.reg, o.rm, vector, 0);
    } else if (code == 0x49 && o.mod == 3 && prefix == 3 && o.rm == 0) {
        need(o.reg, at);
        memset(state.tile[o.reg], 0, sizeof state.tile[o.reg]);
        count(ZERO, 1);
        pass_time(ZERO, o.reg, 0, 0, 0);
    } else if (code == 0x49 && at[4] == 0xc0 && prefix == 0) {
        let_go();
        count(RELEASE, 1);
    } else if (code == 0x49 && o.mod != 3 && o.reg == 0 && prefix == 0) {
        configure(memory + o.index, at);
    } else if (code == 0x49 && o.mod != 3 && o.reg == 0 && prefix == 1) {
        memcpy(memory + o.index, &state.config, sizeof state.config);
    } else if (code == 0x4b && o.mod != 3 && o.rm == 4 && prefix != 0) {
        need(o.reg, at);
        const bool store = prefix == 2; /* else 66 or F2: with or without a hint for the cache */
        const uint8_t rows = state.config.rows[o.reg];
        const size_t bytes = state.config.row_bytes[o.reg];
        if (!store) memset(state.tile[o.reg], 0, sizeof state.tile[o.reg]);
        int64_t missed = 0;
        for (int i = 0; i < rows; i++) {
            char *row = memory + (int64_t)o.index * i;
            memcpy(store ? (void *)row : state.tile[o.reg][i], store ? (void *)state.tile[o.reg][i] : row, bytes);
            missed += miss(row);
        }
        count(LINE, rows);
        count(MISSED, missed);
        count(store ? STORE : LOAD, 1);
        pass_time(store ? STORE : LOAD, o.reg, 0, 0, missed);
    } else {
        fault("#UD: not an instruction of AMX-TILE or AMX-BF16", at);
    }
    return o.end;
}

/* What CPU and system seem to have, by the environment: AMX_TRAP_WITHOUT=cpuid|xcr0|permission takes one away. */
static bool without(const char *what) {
    const char *named = getenv("AMX_TRAP_WITHOUT");
    return named && !strcmp(named, what);
}

static struct {
    const uint8_t *at;
    bool xgetbv; /* else CPUID */
} sites[MAX_SITES];
static int site_count;

static void answer(greg_t *r, bool xgetbv) {
    unsigned a, b, c = (unsigned)r[REG_RCX], d;
    const bool features = r[REG_RAX] == 7 && c == 0;
    if (xgetbv) {
        __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(c));
        r[REG_RAX] = without("xcr0") ? a : a | 0x60000, r[REG_RDX] = d;
        return;
    }
    __cpuid_count((unsigned)r[REG_RAX], c, a, b, c, d);
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = features && !without("cpuid") ? d | 1u << 22 | 1u << 24 : d;
}

static struct sigaction others; /* for what is not ours */

static void handle(int signal_number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *at = (const uint8_t *)(uintptr_t)r[REG_RIP];
    for (int i = 0; i < site_count; i++)
        if (sites[i].at == at) {
            answer(r, sites[i].xgetbv);
            r[REG_RIP] += sites[i].xgetbv ? 3 : 2;
            return;
        }
    if (at[0] == 0xc4 && (at[1] & 31) == 2 && (at[3] == 0x49 || at[3] == 0x4b || at[3] == 0x5c)) {
        r[REG_RIP] = (greg_t)(uintptr_t)execute(r, at);
    } else if (others.sa_flags & SA_SIGINFO) {
        others.sa_sigaction(signal_number, info, context);
    } else if (others.sa_handler != SIG_DFL && others.sa_handler != SIG_IGN) {
        others.sa_handler(signal_number);
    } else {
        fault("another instruction", at);
    }
}

static int real_sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
    int (*next)(int, const struct sigaction *, struct sigaction *);
    *(void **)&next = dlsym(RTLD_NEXT, "sigaction");
    return next(number, wanted, before);
}

int sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
    if (number != SIGILL) return real_sigaction(number, wanted, before);
    if (before) *before = others;
    if (wanted) others = *wanted;
    return 0;
}

long syscall(long number, ...) {
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_arch_prctl && a[0] == ARCH_REQ_XCOMP_PERM && a[1] == XTILEDATA) {
        count(PERMISSION, 1);
        errno = EPERM;
        return without("permission") ? -1 : 0;
    }
    long result;
    register long r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    if (result >= -4095 && result < 0) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

/* From now on the CPUID and XGETBV instructions at these offsets, in the library that `symbol` is of, are answered here. */
int amx_trap_patch(const void *symbol, const int64_t *offsets, int64_t n) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    Dl_info library;
    if (n > MAX_SITES || !dladdr(symbol, &library)) return -1;
    for (int64_t i = 0; i < n; i++) {
        uint8_t *at = (uint8_t *)library.dli_fbase + offsets[i];
        void *start = (void *)((uintptr_t)at & ~(page - 1));
        if (at[0] != 0x0f || (at[1] != 0xa2 && at[1] != 0x01)) return -1;
        if (mprotect(start, 2 * page, PROT_READ | PROT_WRITE | PROT_EXEC)) return -1;
        sites[site_count].at = at;
        sites[site_count++].xgetbv = at[1] == 0x01;
        at[1] = 0x0b; /* UD2 */
        if (mprotect(start, 2 * page, PROT_READ | PROT_EXEC)) return -1;
    }
    return 0;
}

__attribute__((constructor)) static void begin(void) {
    const struct sigaction ours = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER};
    real_sigaction(SIGILL, &ours, &others);
}
