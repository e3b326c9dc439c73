# The part of _native.pyx that holds memory for runs (`Arena`) and prepared steps that run without the GIL (`Program`).

cdef enum:
    HUGE = 1 << 21  # bytes of a huge page


cdef class Arena:
    """Zeroed memory straight from the system, freed with the object.

    From 2 MiB on it starts on a 2 MiB boundary and asks for huge pages: weights and activations are streamed once per run, and
    with 4 KiB pages every 64 cache lines cost an address translation.
    """
    cdef void *mapping
    cdef char *memory
    cdef size_t length
    cdef readonly int64_t nbytes

    def __cinit__(self, int64_t nbytes):
        cdef bint huge = nbytes >= HUGE
        if nbytes < 0 or nbytes > (<int64_t>1 << 46):
            raise MemoryError(f"cannot allocate an arena of {nbytes} bytes")
        self.length = <size_t>nbytes + (HUGE if huge else 1)
        self.mapping = mmap(NULL, self.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if self.mapping == MAP_FAILED:
            self.mapping = NULL
            raise MemoryError(f"cannot allocate an arena of {nbytes} bytes")
        self.memory = <char *>self.mapping
        if huge:
            self.memory = <char *>((<size_t>self.mapping + HUGE - 1) // HUGE * HUGE)
            madvise(self.memory, <size_t>nbytes, MADV_HUGEPAGE)  # a wish: without it pages are small and all is well
        self.nbytes = nbytes

    def __dealloc__(self):
        if self.mapping != NULL:
            munmap(self.mapping, self.length)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.memory, self.nbytes, 0, flags)


cdef struct Step:
    const infold_op *op
    void *params
    int64_t region[INFOLD_MAX_ARGS]  # >= 0: index into the run's buffers; -1: offset is an address; -2: absent
    int64_t offset[INFOLD_MAX_ARGS]
    int args
    int64_t section, track  # section 0: a step by itself; otherwise the tracks of a section run side by side


cdef struct Section:
    const Step *steps
    int64_t begin, end
    void **bases
    const infold_ctx *ctx
    double *clock


cdef void _run_step(const Step *s, void **bases, const infold_ctx *ctx) noexcept nogil:
    cdef void *args[INFOLD_MAX_ARGS]
    cdef int i
    for i in range(INFOLD_MAX_ARGS):
        if i >= s.args or s.region[i] < -1:
            args[i] = NULL
        elif s.region[i] >= 0:
            args[i] = <char *>bases[s.region[i]] + s.offset[i]
        else:
            args[i] = <void *><intptr_t>s.offset[i]
    s.op.run(s.params, args, ctx)


cdef void _run_tracks(const void *arg, int64_t begin, int64_t end, int64_t thread) noexcept nogil:
    cdef const Section *section = <const Section *>arg
    cdef infold_ctx alone = section.ctx[0]
    cdef int64_t at
    cdef double began = 0
    alone.threads = 1
    for at in range(section.begin, section.end):
        if begin <= section.steps[at].track < end:
            if section.clock != NULL:
                began = _now()
            _run_step(&section.steps[at], section.bases, &alone)
            if section.clock != NULL:
                section.clock[at] += _now() - began


cdef class Program:
    """A list of steps over numbered regions (0: the arena; 1..: arrays given to `run`) and constants.

    `append` proves that a step stays inside its regions, so `run` needs to check only the sizes of what it is given.
    """
    cdef Step *steps
    cdef int64_t count, room
    cdef const infold_kernels *kernels
    cdef const infold_bf16 *bf16
    cdef readonly list region_bytes
    cdef list constants  # keeps the arrays alive whose addresses the steps hold

    def __cinit__(self, str isa, list region_bytes):
        self.kernels, self.bf16 = infold_find_kernels(isa.encode()), infold_find_bf16(isa.encode())
        if self.kernels == NULL:
            raise ValueError(f"this CPU cannot run the {isa} kernels")
        self.region_bytes = list(region_bytes)
        self.constants = []

    def __dealloc__(self):
        cdef int64_t i
        for i in range(self.count):
            free(self.steps[i].params)
        free(self.steps)

    def __len__(self):
        return self.count

    def append(self, int op_index, bytes params, list args, int64_t section=0, int64_t track=0):
        """Add a step. args: None, or (region, byte offset), or (array, byte offset) for a constant (tables
        whose contents a check must see are writable arrays).

        Neighbouring steps of the same `section` > 0 run by `track`: each track in order on one thread, tracks side by side. Whoever
        plans them sees to it that no track writes what another touches.

        Returns 0, or the infold_status (1 parameter, 2 bounds, 3 missing buffer) with which the operation refused.
        """
        cdef const infold_op *op = infold_ops()[op_index]
        cdef infold_extent extents[INFOLD_MAX_ARGS]
        cdef Step step
        cdef Py_buffer view
        cdef int i
        cdef int64_t offset, total
        if len(params) != <Py_ssize_t>op.params_size or len(args) > INFOLD_MAX_ARGS:
            return 1
        memset(&step, 0, sizeof(step))
        step.op = op
        step.args = <int>len(args)
        step.section, step.track = section, track
        for i in range(INFOLD_MAX_ARGS):
            step.region[i] = -2
            extents[i].ptr, extents[i].before, extents[i].after = NULL, 0, -1
        for i, arg in enumerate(args):
            if arg is None:
                continue
            where, offset = arg
            if isinstance(where, int):
                total = self.region_bytes[where]
                step.region[i], step.offset[i] = where, offset
            else:
                PyObject_GetBuffer(where, &view, PyBUF_C_CONTIGUOUS)
                total = view.len
                step.region[i], step.offset[i] = -1, <int64_t><intptr_t>view.buf + offset
                if not view.readonly:  # else it may be a mapped file, whose contents change: a check must not rely on them
                    extents[i].ptr = <char *>view.buf + offset
                PyBuffer_Release(&view)
                self.constants.append(where)
            if offset < 0 or offset > total:
                return 2
            extents[i].before, extents[i].after = offset, total - offset
        cdef int status = op.check(<const char *>params, extents, self.kernels)
        if status != 0:
            return status
        if self.count == self.room:
            steps = <Step *>realloc(self.steps, <size_t>(2 * self.room + 16) * sizeof(Step))
            if steps == NULL:
                raise MemoryError("cannot allocate a step")
            self.steps, self.room = steps, 2 * self.room + 16
        step.params = malloc(op.params_size)
        if step.params == NULL:
            raise MemoryError("cannot allocate a step")
        memcpy(step.params, <const char *>params, op.params_size)
        self.steps[self.count] = step
        self.count += 1
        return 0

    def run(self, list buffers, int threads, int64_t first=0, int64_t last=-1, double[::1] seconds=None):
        """Run steps [first, last) on buffers (one per region, writable, contiguous); seconds receives each step's time.

        Numbers are rounded to nearest and denormals kept, whatever the calling thread has set, which it finds again afterwards.

        Returns -1, or the index of the step that met an index outside its tensor (or of the last one that ran beside it): those
        behind it did not run.
        """
        return self._run(buffers, threads, first, last, seconds, 1, set(), [], -1)[0]

    def repeat(self, list buffers, int threads, double[::1] seconds, int64_t trips, set moving, list carried, int condition):
        """Run all steps up to `trips` times.

        moving: regions that go on by their size from one time to the next, in a buffer that holds one behind the other;
        carried: pairs of regions of one size that change places behind each time; condition: the region whose first byte ends it
        if it is zero, or -1; seconds: as in `run`, or None, all times together.

        Returns what `run` does, and how many times were completed.
        """
        return self._run(buffers, threads, 0, -1, seconds, trips, moving, carried, condition)

    cdef tuple _run(self, list buffers, int threads, int64_t first, int64_t last, double[::1] seconds, int64_t trips, set moving,
                    list carried, int condition):
        cdef int regions = <int>len(self.region_bytes), held = 0, pairs = <int>len(carried), i
        cdef int64_t at, tracks, done = 0
        cdef Py_buffer *views
        cdef void **bases
        cdef void *base
        cdef int64_t *advance
        cdef int *pair
        cdef infold_ctx ctx
        cdef Section section
        cdef const Step *s
        cdef double before, after, checked
        cdef double *clock = NULL
        cdef int64_t fault = 0, faulty = -1
        cdef fenv_t environment
        if last < 0 or last > self.count:
            last = self.count
        if len(buffers) != regions or threads < 1 or first < 0:
            raise ValueError(f"{regions} buffers and at least one thread expected, got {len(buffers)} and {threads}")
        if trips < 1 or not -1 <= condition < regions or (condition >= 0 and self.region_bytes[condition] < 1):
            raise ValueError(f"at least one time and a region expected, got {trips} and {condition}")
        for one, other in carried:
            if not (0 < one < regions and 0 < other < regions and self.region_bytes[one] == self.region_bytes[other]
                    and moving.isdisjoint((one, other))):
                raise ValueError(f"regions {one} and {other} cannot change places")
        if seconds is not None:
            if seconds.shape[0] < self.count:
                raise ValueError(f"room for {self.count} step times expected, got {seconds.shape[0]}")
            clock = &seconds[0] if self.count else NULL
        views = <Py_buffer *>calloc(<size_t>regions + 1, sizeof(Py_buffer))
        bases = <void **>calloc(<size_t>regions + 1, sizeof(void *))
        advance = <int64_t *>calloc(<size_t>regions + 1, sizeof(int64_t))
        pair = <int *>calloc(2 * <size_t>pairs + 1, sizeof(int))
        ctx.kernels, ctx.bf16, ctx.threads, ctx.fault = self.kernels, self.bf16, threads, &fault
        fegetenv(&environment)
        fesetenv(FE_DFL_ENV)
        try:
            if views == NULL or bases == NULL or advance == NULL or pair == NULL:
                raise MemoryError("cannot allocate a run")
            for i in range(regions):
                PyObject_GetBuffer(buffers[i], &views[i], PyBUF_C_CONTIGUOUS)
                held = i + 1
                needed = self.region_bytes[i] * (trips if i in moving else 1)
                if views[i].len < needed:
                    raise ValueError(f"region {i} needs {needed} bytes, got {views[i].len}")
                bases[i] = views[i].buf
                advance[i] = self.region_bytes[i] if i in moving else 0
            for i in range(pairs):
                pair[2 * i], pair[2 * i + 1] = carried[i]
            with nogil:
                checked = before = _now()
                while True:
                    at = first
                    while at < last:
                        s = &self.steps[at]
                        if s.section == 0:
                            _run_step(s, bases, &ctx)
                            after = _now()
                            if clock != NULL:
                                clock[at] += after - before
                            at += 1
                        else:
                            section = Section(self.steps, at, at, bases, &ctx, clock)
                            tracks = 0
                            while section.end < last and self.steps[section.end].section == s.section:
                                tracks = max(tracks, self.steps[section.end].track + 1)
                                section.end += 1
                            infold_parallel(&ctx, tracks, 1, _run_tracks, &section)
                            after = _now()
                            at = section.end
                        before = after
                        if fault != 0:
                            faulty = at - 1
                            break
                        if after - checked > 0.05:  # a Ctrl-C waits for the end of a step at most
                            checked = after
                            with gil:
                                PyErr_CheckSignals()
                    if faulty >= 0:
                        break
                    done += 1
                    if done == trips or (condition >= 0 and (<const char *>bases[condition])[0] == 0):
                        break
                    for i in range(regions):
                        bases[i] = <char *>bases[i] + advance[i]
                    for i in range(pairs):
                        base = bases[pair[2 * i]]
                        bases[pair[2 * i]] = bases[pair[2 * i + 1]]
                        bases[pair[2 * i + 1]] = base
            return faulty, done
        finally:
            fesetenv(&environment)
            for i in range(held):
                PyBuffer_Release(&views[i])
            free(views)
            free(bases)
            free(advance)
            free(pair)
