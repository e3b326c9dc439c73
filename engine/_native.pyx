# cython: language_level=3, boundscheck=False, wraparound=False
"""The C kernels seen from Python: what this CPU offers, and `Program`, a flat list of prepared steps that runs without the GIL."""
from cpython.buffer cimport PyBuffer_FillInfo, PyObject_GetBuffer, PyBuffer_Release, PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, Py_buffer
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, intptr_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from *:
    """
    #include <sys/mman.h>
    #ifndef MADV_HUGEPAGE
    #define MADV_HUGEPAGE MADV_NORMAL /* Linux alone has the wish */
    #endif
    """

cdef extern from "sys/mman.h" nogil:
    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t length)
    int madvise(void *address, size_t length, int advice)
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MADV_HUGEPAGE
    void *MAP_FAILED

cdef extern from "fenv.h" nogil:
    ctypedef struct fenv_t:
        pass
    const fenv_t *FE_DFL_ENV
    int fegetenv(fenv_t *env)
    int fesetenv(const fenv_t *env)

cdef extern from "abi.h" nogil:
    enum:
        INFOLD_MAX_ARGS
        INFOLD_ALIGN
    ctypedef enum infold_status:
        INFOLD_OK
    ctypedef struct infold_kernels:
        const char *name
        int64_t lanes, mr, nr
        float (*fma_peak)(int64_t iterations) noexcept nogil
    ctypedef struct infold_bf16:
        int64_t mr, m_step, peak_macs, depth_step
        double macs_per_cycle
        float (*peak)(int64_t iterations) noexcept nogil
    ctypedef struct infold_ctx:
        const infold_kernels *kernels
        const infold_bf16 *bf16
        int64_t threads
        int64_t *fault
    ctypedef struct infold_extent:
        const void *ptr
        int64_t before, after
    ctypedef struct infold_op:
        const char *name
        const char *params
        const char *args
        size_t params_size
        infold_status (*check)(const void *params, const infold_extent *args, const infold_kernels *kernels) noexcept
        void (*run)(const void *params, void *const *args, const infold_ctx *ctx) noexcept nogil
    const infold_kernels *infold_find_kernels(const char *name)
    const infold_bf16 *infold_find_bf16(const char *name)
    int infold_isa_names(const char **names, int room, int emulated)
    const infold_op *const *infold_ops()
    int64_t infold_cache_bytes(int level)
    void infold_survive_fork()
    const char *infold_act_name(int act) noexcept
    const char *infold_binary_name(int op) noexcept
    const char *infold_reduction_name(int op) noexcept
    const char *infold_loop_name(int loop) noexcept

cdef extern from "drivers/parallel.h" nogil:
    ctypedef void (*infold_body)(const void *arg, int64_t begin, int64_t end, int64_t thread) noexcept nogil
    void infold_parallel(const infold_ctx *ctx, int64_t count, int64_t grain, infold_body body, const void *arg)

infold_survive_fork()

cdef double _now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <double>t.tv_sec + 1e-9 * <double>t.tv_nsec


def now():
    """Seconds on the monotonic clock that steps are timed with."""
    return _now()


def isa_names(bint emulated=False):
    """Names of the instruction sets usable on this CPU, best first; or of those that are emulated, for tests."""
    cdef const char *names[8]
    cdef int count = infold_isa_names(names, 8, emulated)
    return [names[i].decode() for i in range(count)]


def isa_info(str name):
    """{kernels, lanes, mr, nr, bf16_macs, bf16_depth, bf16_rows} of one instruction set, or None if this CPU cannot run it.

    kernels: the name of its float32 kernels; bf16_macs: bf16 multiply-adds in a cycle, 0 if emulated;
    bf16_depth, bf16_rows: what the length of their sums, and the number of rows, is rounded up to; tiles have several rows.
    """
    cdef const infold_kernels *k = infold_find_kernels(name.encode())
    cdef const infold_bf16 *h = infold_find_bf16(name.encode())
    return None if k == NULL else {"kernels": k.name.decode(), "lanes": k.lanes, "mr": k.mr, "nr": k.nr,
                                   "bf16_macs": h.macs_per_cycle, "bf16_depth": h.depth_step,
                                   "bf16_rows": h.m_step}


cdef struct peak_job:
    float (*run)(int64_t iterations) noexcept nogil
    int64_t iterations


cdef void _peak(const void *arg, int64_t begin, int64_t end, int64_t thread) noexcept nogil:
    cdef const peak_job *job = <const peak_job *>arg
    job.run(job.iterations * (end - begin))


def peak_flops(str name, double seconds=0.05, bint bf16=False, int threads=1):
    """Operations per second on registers alone, of `threads` threads together, in float32 or bf16 (best of several short runs): the
    kernels' roof."""
    cdef infold_ctx ctx
    cdef const infold_kernels *k = infold_find_kernels(name.encode())
    cdef const infold_bf16 *h = infold_find_bf16(name.encode())
    cdef double best = 0, began, spent, total = 0
    if k == NULL:
        raise ValueError(f"this CPU cannot run the {name} kernels")
    if threads < 1:
        raise ValueError(f"at least one thread expected, got {threads}")
    ctx.kernels, ctx.threads = k, threads
    cdef peak_job job
    job.run, job.iterations = k.fma_peak, 20000
    if bf16:
        job.run = h.peak
    cdef int64_t work = 2 * h.peak_macs if bf16 else 4 * k.mr * k.lanes
    while total < seconds:
        with nogil:
            began = _now()
            infold_parallel(&ctx, threads, 1, _peak, &job)
            spent = _now() - began
        total += spent
        best = max(best, <double>(work * job.iterations * threads) / spent)
    return best


cdef void _count(const void *arg, int64_t begin, int64_t end, int64_t thread) noexcept nogil:
    (<int64_t *>arg)[8 * thread] += end - begin


def dispatch_seconds(int threads, int64_t calls):
    """Seconds that it takes to hand work to `threads` threads and wait for them, once, the mean of `calls` calls in a row."""
    cdef infold_ctx ctx
    cdef int64_t *counts
    cdef int64_t i, total = 0
    cdef double began
    ctx.kernels, ctx.threads = NULL, threads
    if threads < 1 or threads > 1024 or calls < 1:
        raise ValueError(f"1 to 1024 threads and at least one call expected, got {threads} and {calls}")
    counts = <int64_t *>calloc(<size_t>threads * 8, sizeof(int64_t))
    if counts == NULL:
        raise MemoryError("cannot allocate the counters")
    with nogil:
        began = _now()
        for i in range(calls):
            infold_parallel(&ctx, threads, 1, _count, counts)
        began = _now() - began
    for i in range(threads):
        total += counts[8 * i]
    free(counts)
    if total != threads * calls:
        raise AssertionError(f"{total} pieces of {threads * calls} were done")
    return began / calls


def cache_bytes(int level):
    """Size in bytes of the data cache of a level (1, 2, 3); 0 if unknown."""
    return infold_cache_bytes(level)


def operations():
    """{name: (index, params description, args description, bytes of the parameter struct)} of every C operation."""
    cdef const infold_op *const *ops = infold_ops()
    cdef int i = 0
    out = {}
    while ops[i] != NULL:
        out[ops[i].name.decode()] = (i, ops[i].params.decode(), ops[i].args.decode(), ops[i].params_size)
        i += 1
    return out


cdef dict _names(const char *(*name_of)(int) noexcept nogil):
    out = {}
    while name_of(len(out)) != NULL:
        out[name_of(len(out)).decode()] = len(out)
    return out


ACTS = _names(infold_act_name)
BINARIES = _names(infold_binary_name)
REDUCTIONS = _names(infold_reduction_name)
LOOPS = _names(infold_loop_name)


include "_program.pxi"
