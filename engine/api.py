"""`InferenceSession` and `SessionOptions`: onnxruntime's face on infold's engine."""
from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from . import host
from .errors import InvalidInputError, MemoryLimitError, UnsupportedError
from .importers import load
from .importers.onnx import settle
from .passes import prepare, training
from .passes.context import node_name
from .plan.build import ADDRESSABLE, FallbackStep
from .plan.options import PlanOptions
from .report.session import Fallback, SessionReport, StepRecord
from .runtime import Runner

PRECISIONS = ("highest", "high", "medium")


@dataclass
class SessionOptions:
    """How a session runs.

    intra_op_num_threads: threads per run; 0: all CPUs of the process (affinity and cgroup quota).
    precision: "highest" (float32 accuracy), "high" (products of 16 bits) or "medium" (bf16); a level allows more error, it never
        demands it.
    native_only: refuse models that need the reference fallback.
    max_memory: bytes that arena, outputs and packed weights of a plan may take together; None: no limit.
    training_mode: what to do with BatchNormalizations exported in training mode: "error" refuses the model, "running"
        normalises with their running statistics, "batch" with those of the batch, as the file says.
    algorithms: node name, or "*" for every node, -> the algorithm to use there ("direct", ...) instead of the planner's choice; what
        a node cannot do is ignored.
    """

    intra_op_num_threads: int = 0
    precision: str = "highest"
    native_only: bool = False
    max_memory: int | None = None
    training_mode: str = "error"
    algorithms: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeArg:
    """An input or output as onnxruntime describes it; `shape` holds ints, names of symbolic dimensions, and None."""

    name: str
    shape: list[int | str | None]
    type: str


class InferenceSession:
    """A model made ready to run.

    Args:
        model: path (.onnx; other formats by their importers), bytes, onnx.ModelProto or onnx_ir.Model. Never modified.
        sess_options: see `SessionOptions`.
        providers: accepted for onnxruntime's sake; anything other than the CPU is refused.
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
        with _no_collection():
            try:
                self._prepare(model, precision)
            except MemoryError as error:
                raise error if isinstance(error, MemoryLimitError) else MemoryLimitError(f"no memory for the model: {error}") from error

    def _prepare(self, model: object, precision: str) -> None:
        loaded = training.resolve(load(model, lean=True), getattr(self.options, "training_mode", "error"))
        self.model, folds = prepare(loaded, own=loaded is not model)
        del loaded
        graph = self.model.graph
        self._inputs = {v.name: v for v in graph.inputs if v.name not in graph.initializers}
        self._optional = {v.name: v for v in graph.inputs if v.name in graph.initializers}
        self._outputs = [v.name for v in graph.outputs]
        static = self._static_feeds()
        self._plan_options = PlanOptions(
            self.isa, precision, self.threads, bool(getattr(self.options, "native_only", False)),
            getattr(self.options, "max_memory", None), dict(getattr(self.options, "algorithms", {})), release=static is not None)
        if static is None:
            settle(self.model)
        self._runner = Runner(self.model, self._outputs, self._plan_options)
        self._folds = folds
        if static is not None:
            self._runner.plan(static)
            settle(self.model)

    # onnxruntime's face

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that a run needs, in the model's order."""
        return [_node_arg(v) for v in self._inputs.values()]

    def get_outputs(self) -> list[NodeArg]:
        return [_node_arg(v) for v in self.model.graph.outputs]

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, object], run_options: object = None) -> list:
        """Run the model.

        Args:
            output_names: which outputs, in which order; None or empty: all.
            input_feed: arrays by input name, with the model's data types and ranks.
            run_options: accepted for onnxruntime's sake and ignored.
        Returns:
            A list of arrays (or Python lists for sequences), one for each output name.
        Raises:
            InvalidInputError: a name, data type, rank or dimension does not fit the model.
        """
        wanted = list(output_names) if output_names else self._outputs
        unknown = [n for n in wanted if n not in self._outputs]
        if unknown:
            raise InvalidInputError(f"no output named {unknown[0]!r}; the model has {', '.join(self._outputs)}")
        results = self._runner.run(self._checked(input_feed), self.threads)
        return [results[n] for n in wanted]

    # What infold adds

    @property
    def report(self) -> SessionReport:
        """BatchNorms and what became of them; fallbacks and memory of the plans made so far."""
        plans = self._runner.plans
        fallbacks = {(s.node, s.op_type, s.reason): None for p in plans for s in p.steps if isinstance(s, FallbackStep)}
        fused = {node_name(node): ", ".join(map(node_name, into)) for p in plans for node, into in p.fused.items()}
        return SessionReport(fold=self._folds.with_fused(fused), fallbacks=[Fallback(*f) for f in fallbacks], isa=self.isa,
                             threads=self.threads, weight_bytes=self._runner.store.nbytes, arena_bytes=max([p.arena_bytes for p in plans], default=0),
                             plans=len(plans))

    def profile(self, input_feed: Mapping[str, object], runs: int = 10) -> list[StepRecord]:
        """Median time of every step over `runs` runs (after one to warm up), in execution order."""
        feeds, seconds = self._checked(input_feed), {}
        self._runner.run(feeds, self.threads)
        for _ in range(runs):
            self._runner.run(feeds, self.threads, seconds)
        return [StepRecord.of(step, float(np.median(spent))) for step, spent in seconds.items()]

    def run_intermediates(self, input_feed: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
        """Values inside the prepared graph, by name; names that folding has removed are left out."""
        alive = {v.name for node in self.model.graph for v in node.outputs} | set(self._inputs)
        wanted = [n for n in names if n in alive]
        runner = Runner(self.model, wanted, self._plan_options, self._runner.store)
        return runner.run(self._checked(input_feed), self.threads)

    # Inputs

    def _static_feeds(self) -> dict[str, np.ndarray] | None:
        """Stand-ins for the inputs if all their dimensions are fixed: such a model is planned before its first run."""
        feeds = {}
        for name, value in self._inputs.items():
            if not isinstance(value.type, ir.TensorType) or value.dtype == ir.DataType.STRING:
                return None
            if value.shape is None or not all(isinstance(d, int) for d in value.shape.dims):
                return None
            shape = tuple(value.shape.dims)
            if prod(n or 1 for n in shape) > ADDRESSABLE // value.dtype.itemsize:
                raise MemoryLimitError(f"input {name!r} of shape {list(shape)} fits no memory")
            feeds[name] = np.broadcast_to(np.zeros((), value.dtype.numpy()), shape)
        return feeds

    def _checked(self, feeds: Mapping[str, object]) -> dict[str, object]:
        missing = [n for n in self._inputs if n not in feeds]
        if missing:
            raise InvalidInputError(f"the input {missing[0]!r} is missing; the model needs {', '.join(self._inputs)}")
        out = {}
        for name, given in feeds.items():
            value = self._inputs.get(name) or self._optional.get(name)
            if value is None:
                raise InvalidInputError(f"no input named {name!r}; the model has {', '.join(self._inputs)}")
            out[name] = _checked_input(name, value, given)
        return {n: out[n] for n in [*self._inputs, *self._optional] if n in out}


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


def _checked_input(name: str, value: ir.Value, given: object) -> object:
    if not isinstance(value.type, ir.TensorType) or value.dtype == ir.DataType.STRING:
        return given
    array = np.asarray(given)
    expected = value.dtype.numpy() if value.dtype is not None else array.dtype
    if array.dtype.newbyteorder("=") != expected:
        raise InvalidInputError(f"input {name!r}: data type {expected} expected, got {array.dtype}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if value.shape is not None:
        dims = [d if isinstance(d, int) else None for d in value.shape.dims]
        if len(dims) != array.ndim:
            raise InvalidInputError(f"input {name!r}: rank {len(dims)} expected ({_dims(value)}), got shape {list(array.shape)}")
        wrong = [i for i, (d, n) in enumerate(zip(dims, array.shape)) if d is not None and d != n]
        if wrong:
            raise InvalidInputError(f"input {name!r}: dimension {wrong[0]} must be {dims[wrong[0]]} ({_dims(value)}), "
                                    f"got shape {list(array.shape)}")
    return array


def _dims(value: ir.Value) -> list[int | str | None]:
    return [] if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape.dims]


def _node_arg(value: ir.Value) -> NodeArg:
    if isinstance(value.type, ir.TensorType) and value.dtype is not None:
        name = onnx.TensorProto.DataType.Name(int(value.dtype)).lower()
        kind = f"tensor({name})"
    else:
        kind = str(value.type)
    return NodeArg(value.name, _dims(value), kind)

