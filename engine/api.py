"""`InferenceSession` and `SessionOptions`: onnxruntime's face on infold's engine."""
from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from . import host
from .compiled import CompiledFile, CompiledRunner, is_compiled
from .errors import InvalidInputError, InvalidModelError, UnsupportedError, memory_for
from .plan.plan import FallbackStep, HostStep
from .ports import NodeArg, Port
from .report.session import Fallback, SessionReport, StepRecord

if TYPE_CHECKING:
    import onnx_ir as ir

    from .cache import Entry
    from .plan.program import Step
    from .preprocess import Preprocess
    from .report.fold import FoldReport
    from .report.trace import Trace


PRECISIONS = ("highest", "high", "medium")


@dataclass
class SessionOptions:
    """How a session runs.

    Attributes:
        intra_op_num_threads: threads per run; 0: all CPUs of the process (affinity and cgroup quota).
        precision: "highest" (float32 accuracy), "high" (products of 16 bits) or "medium" (bf16); a level allows more error,
            it never demands it.
        native_only: refuse models that need the reference fallback.
        max_memory: bytes that arena, outputs, packed weights and the fallback's copies may take together in a plan; None: no limit.
        training_mode: what to do with BatchNormalizations exported in training mode: "error" refuses the model, "running"
            normalises with their running statistics, "batch" with those of the batch, as the file says.
        algorithms: node name, or "*" for every node, -> the algorithm to use there ("direct", ...) instead of the planner's choice;
            what a node cannot do is ignored.
        tuned: whether to use what `infold tune` has found for this model, these shapes, threads and precision on this CPU; where
            `algorithms` are given, they alone count.
        preprocess: an `infold.Preprocess` to put in front of the model, whose input then is pixels, uint8 [N, H, W, C]; what can
            be is folded into the first layer, and the report tells so of a BatchNorm named "preprocess".
        enable_profiling: keep a trace of every run, which `InferenceSession.end_profiling` writes for Perfetto and chrome://tracing.
        profile_file_prefix: how the path of that file begins.
        cache_dir: a folder that keeps sessions between processes: the first one of an ONNX file writes its plan and packed weights
            there, as `infold.compile` does, later ones map them (docs/compile.md); None: what the environment variable
            INFOLD_CACHE_DIR says; "": none.
    """

    intra_op_num_threads: int = 0
    precision: str = "highest"
    native_only: bool = False
    max_memory: int | None = None
    training_mode: str = "error"
    algorithms: dict[str, str] = field(default_factory=dict)
    tuned: bool = True
    preprocess: Preprocess | None = None
    enable_profiling: bool = False
    profile_file_prefix: str = "infold_profile_"
    cache_dir: str | os.PathLike | None = None


def without_cache(options: object) -> SessionOptions:
    """The options (of others than infold's own, the number of threads) for a session that is not kept, nor one that was."""
    if not isinstance(options, SessionOptions):
        options = SessionOptions(intra_op_num_threads=getattr(options, "intra_op_num_threads", 0))
    return replace(options, cache_dir="")


class InferenceSession:
    """A model made ready to run.

    Args:
        model: path (.onnx; other formats by their importers; .infold, see `infold.compile`), bytes, onnx.ModelProto or
            onnx_ir.Model. Never modified.
        sess_options: see `SessionOptions`.
        providers: accepted for onnxruntime's sake; anything other than the CPU is refused.
    Attributes:
        inputs, outputs: the ports that a run needs and offers, by name, in the model's order.
        threads, isa: what it computes with.
        runner: makes and keeps the plans (`infold.runtime.Runner`, or what takes its place in a compiled file).
        plan_options: what these plans are made for; none with a compiled file.
    Raises:
        InvalidModelError, ExternalDataError, UnsupportedError: the model cannot be used, and why.
    """

    def __init__(self, model: object, sess_options: SessionOptions | None = None, providers: Sequence | None = None) -> None:
        self.options = sess_options or SessionOptions()
        precision = getattr(self.options, "precision", "highest")  # onnxruntime's own options have none
        if precision not in PRECISIONS:
            raise UnsupportedError(f"precision {precision!r}: one of {', '.join(PRECISIONS)} expected")
        names = [p if isinstance(p, str) else p[0] for p in providers or []]
        if names and "CPUExecutionProvider" not in names:
            raise UnsupportedError(f"providers {names}: infold runs on the CPU (CPUExecutionProvider)")
        threads = int(getattr(self.options, "intra_op_num_threads", 0) or 0)
        self.threads = threads if threads > 0 else host.cpus()
        self.isa = host.isa()
        self._file: CompiledFile | None = None
        self._source: object = None  # what a kept session was made from
        self._model: ir.Model | None = None
        self._shared = False  # whether somebody else may hold the model
        self._trace: Trace | None = None
        if getattr(self.options, "enable_profiling", False):
            from .report.trace import Trace

            self._trace = Trace()
        with _no_collection(), memory_for("the model"):
            if is_compiled(model):
                self._open(CompiledFile(model))
            elif (entry := self._entry(model)) is None:
                self._prepare(model, precision)
            elif not self._reopen(entry):
                files = self._prepare(model, precision)
                if self.runner.plans and not self._optional:
                    entry.keep(self, files)

    def _entry(self, model: object) -> Entry | None:
        folder = getattr(self.options, "cache_dir", None)
        folder = os.environ.get("INFOLD_CACHE_DIR", "") if folder is None else os.fspath(folder)
        if not folder or not isinstance(model, (str, os.PathLike)) or not os.fspath(model).lower().endswith(".onnx"):
            return None
        from .cache import Entry

        return Entry(folder, self, model)

    def _reopen(self, entry: Entry) -> bool:
        """Whether this session has been kept, and serves again."""
        if (file := entry.open()) is None or file.misfit(self.isa):
            return False
        self._source = entry.source
        try:
            self._open(file)
        except InvalidModelError as error:
            entry.ignore(error)
            self._file = self._source = None
        return self._file is not None

    def _prepare(self, model: object, precision: str) -> list[str]:
        """Returns the external files that were read."""
        from . import light  # noqa: F401  (before onnx_ir)
        from .importers import load
        from .importers.onnx import EXTERNAL_FILES, settle, within_file
        from .passes import prepare, training
        from .plan.options import PlanOptions
        from .reread import Reread
        from .runtime import Runner, port

        mode = getattr(self.options, "training_mode", "error")
        preprocess: Preprocess | None = getattr(self.options, "preprocess", None)

        files: list[str] = []

        def prepared(source: object) -> tuple[ir.Model, FoldReport, bool]:
            loaded = load(source, lean=True)
            files[:] = loaded.meta.get(EXTERNAL_FILES, ())
            loaded = training.resolve(loaded, mode)
            within = isinstance(source, (str, os.PathLike)) and within_file(loaded)
            if preprocess is not None:
                from .preprocess.graph import embed

                loaded = embed(loaded, preprocess)
            return *prepare(loaded, own=loaded is not source), within

        self._model, self._folds, within = prepared(model)
        graph = self._model.graph
        self.inputs = {v.name: port(v) for v in graph.inputs if v.name not in graph.initializers}
        self._optional = {v.name: port(v) for v in graph.inputs if v.name in graph.initializers}
        self.outputs = {v.name: port(v) for v in graph.outputs}
        self.output_names = [v.name for v in graph.outputs]  # a model may give out one value twice
        feeds = {name: given.stand_in() for name, given in self.inputs.items()}
        static = all(array is not None for array in feeds.values())
        algorithms = dict(getattr(self.options, "algorithms", {}))
        look_up = None if getattr(self.options, "tuned", True) and not algorithms else {}
        self.plan_options = PlanOptions(
            self.isa, precision, self.threads, bool(getattr(self.options, "native_only", False)),
            getattr(self.options, "max_memory", None), algorithms, look_up, release=static,
            reread=Reread(model, lambda path: prepared(path)[0]) if within and static else None)
        if not static:
            settle(self._model)
        self.runner = Runner(self._model, list(self.outputs), self.plan_options)
        if static:  # such a model is planned before its first run
            self.runner.plan(feeds)
            settle(self._model)
        return files

    def _open(self, file: CompiledFile) -> None:
        if self._source is None and getattr(self.options, "preprocess", None) is not None:
            raise UnsupportedError(f"{file.path} is compiled: preprocessing goes in before, by `infold compile --preprocess`")
        self._file, self._rebuilt = file, None
        self.inputs, self._optional, self.outputs, self._folds = self._file.inputs, {}, self._file.outputs, self._file.folds
        self.output_names = self._file.output_names
        misfit = self._file.misfit(self.isa)
        self.runner = self._rebuild(misfit).runner if misfit else CompiledRunner(
            self._file, lambda reason: self._rebuild(reason).runner, getattr(self.options, "max_memory", None))

    def _rebuild(self, reason: str) -> InferenceSession:
        """An ordinary session where the plans of a file do not serve: of the model inside, or of the one it was kept for."""
        if self._rebuilt is None and self._source is not None:
            from .cache import current

            if not current(self._file):
                raise InvalidModelError(f"{self._source} has changed: the session cannot be made from it again ({reason})")
            self._rebuilt = InferenceSession(self._source, replace(
                without_cache(self.options), intra_op_num_threads=self.threads))
        elif self._rebuilt is None:
            if self._file.model is None:
                raise UnsupportedError(f"{self._file.path}: {reason}; and it was compiled without the model itself")
            self._rebuilt = InferenceSession(self._file.model, replace(
                without_cache(self.options), intra_op_num_threads=self.threads, precision=self._file.precision,
                training_mode="batch"))
        return self._rebuilt

    @property
    def model(self) -> ir.Model:
        """The prepared graph."""
        self._shared = True
        return self._model if self._file is None else self._rebuild("its graph was asked for").model

    def __del__(self) -> None:
        """A graph is full of cycles: its weights would stay until Python's collector comes upon it."""
        if getattr(self, "_model", None) is not None and not self._shared:
            for value in self._model.graph.initializers.values():
                value.const_value = None

    def __copy__(self, memo: object = None) -> InferenceSession:
        """Itself: nothing of it changes."""
        return self

    __deepcopy__ = __copy__

    def __reduce__(self) -> NoReturn:
        raise UnsupportedError("a session is not pickled: make one of the model in each process")

    # onnxruntime's face

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that a run needs, in the model's order."""
        return [port.node_arg() for port in self.inputs.values()]

    def get_outputs(self) -> list[NodeArg]:
        return [self.outputs[name].node_arg() for name in self.output_names]

    def end_profiling(self) -> str:
        """Write the trace of all runs so far as `profile_file_prefix` and the time of day; returns the path.

        Raises: InvalidInputError without `SessionOptions.enable_profiling`.
        """
        if self._trace is None:
            raise InvalidInputError("there is no trace: make the session with SessionOptions.enable_profiling")
        path = f"{self.options.profile_file_prefix}{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
        self._trace.write(Path(path))
        return path

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, object], run_options: object = None, *,
            out: Mapping[str, np.ndarray] | None = None) -> list:
        """Run the model.

        Args:
            output_names: which outputs, in which order; None or empty: all.
            input_feed: arrays by input name, with the model's data types and ranks: NumPy's, or what offers `__array__` or DLPack
                in the CPU's memory. They should not change during the run; if they do, so may the results.
            run_options: accepted for onnxruntime's sake and ignored.
            out: output name -> the array to write that output to: of its data type and shape, writable, row-major, aligned. It may
                share memory with inputs, which are then copied first, but not with another one of `out`. What it holds after a
                run that failed is undefined.
        Returns:
            A list of arrays (or Python lists for sequences), one for each output name; those in `out` are the arrays given.
        Raises:
            InvalidInputError: a name, data type, rank or dimension does not fit the model, or an array of `out` its output.
        """
        wanted = list(output_names) if output_names else self.output_names
        unknown = [n for n in wanted if n not in self.outputs]
        if unknown:
            raise InvalidInputError(f"no output named {unknown[0]!r}; the model has {', '.join(self.outputs)}")
        with memory_for("a run"):
            feeds = self.checked(input_feed)
            if out:
                feeds = _apart(feeds, out, self.outputs)
            results = (self.runner.run(feeds, self.threads, out=out) if self._trace is None
                       else self._trace.run(self.runner, feeds, self.threads, out))
            return [results[n] for n in wanted]

    # What infold adds

    @property
    def report(self) -> SessionReport:
        """BatchNorms and what became of them; fallbacks and memory of the plans made so far."""
        plans = self.runner.plans
        fallbacks = {(s.node, s.op_type, s.reason): None for p in plans for s in p.steps if isinstance(s, FallbackStep)}
        fused = {name: into for p in plans for name, into in p.fused.items()}
        return SessionReport(fold=self._folds.with_fused(fused), fallbacks=[Fallback(*f) for f in fallbacks], isa=self.isa,
                             threads=self.threads, weight_bytes=self.runner.weight_bytes,
                             arena_bytes=max([p.arena_bytes for p in plans], default=0),
                             plans=len(plans))

    def profile(self, input_feed: Mapping[str, object], runs: int = 10) -> list[StepRecord]:
        """Median time of every step over `runs` runs (after one to warm up), in execution order."""
        return [StepRecord.of(step, spent) for step, spent in self.step_seconds(input_feed, runs).items()]

    def step_seconds(self, input_feed: Mapping[str, object], runs: int) -> dict[Step | HostStep, float]:
        """The same by step, in seconds."""
        feeds, seconds = self.checked(input_feed), {}
        self.runner.run(feeds, self.threads)
        for _ in range(runs):
            self.runner.run(feeds, self.threads, seconds)
        return {step: float(np.median(spent)) for step, spent in seconds.items()}

    def run_intermediates(self, input_feed: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
        """Values inside the prepared graph, by name; names that folding has removed are left out."""
        if self._file is not None:
            return self._rebuild("values inside it were asked for").run_intermediates(input_feed, names)
        from .runtime import Runner

        alive = {v.name for node in self.model.graph for v in node.outputs} | set(self.inputs)
        wanted = [n for n in names if n in alive]
        runner = Runner(self.model, wanted, self.plan_options, self.runner.store)
        return runner.run(self.checked(input_feed), self.threads)

    # Inputs

    def checked(self, feeds: Mapping[str, object]) -> dict[str, object]:
        """The feeds as arrays that a run can take, in the model's order. Raises InvalidInputError as `run` does."""
        if not isinstance(feeds, Mapping):
            raise InvalidInputError(f"arrays by name of their input expected, got {type(feeds).__name__}")
        missing = [n for n in self.inputs if n not in feeds]
        if missing:
            raise InvalidInputError(f"the input {missing[0]!r} is missing; the model needs {', '.join(self.inputs)}")
        out = {}
        for name, given in feeds.items():
            port = self.inputs.get(name) or self._optional.get(name)
            if port is None:
                raise InvalidInputError(f"no input named {name!r}; the model has {', '.join(self.inputs)}")
            out[name] = port.checked(given)
        return {n: out[n] for n in [*self.inputs, *self._optional] if n in out}


def _apart(feeds: dict[str, object], out: Mapping[str, np.ndarray], outputs: Mapping[str, Port]) -> dict[str, object]:
    """The feeds, copied where they share memory with arrays of `out`.

    Raises InvalidInputError for arrays that cannot be written to.
    """
    taken: dict[str, np.ndarray] = {}
    for name, array in out.items():
        if name not in outputs:
            raise InvalidInputError(f"out: no output named {name!r}; the model has {', '.join(outputs)}")
        if type(array) is not np.ndarray:
            raise InvalidInputError(f"out[{name!r}] is a {type(array).__name__}, not a NumPy array")
        if not (array.flags.writeable and array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
            raise InvalidInputError(f"out[{name!r}] must be writable, row-major, aligned and of native byte order")
        if double := [other for other in taken if np.may_share_memory(array, taken[other])]:
            raise InvalidInputError(f"out[{name!r}] and out[{double[0]!r}] share memory")
        taken[name] = array

    def shared(value: object) -> bool:
        return isinstance(value, np.ndarray) and any(np.may_share_memory(value, array) for array in taken.values())

    return {name: value.copy() if shared(value) else value for name, value in feeds.items()}


@contextmanager
def _no_collection():
    """Without Python's cyclic garbage collector, which would go through hundreds of thousands of new objects and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
