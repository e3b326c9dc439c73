"""A prepared run and its execution: native stretches in one GIL-free call each, fallback nodes between them.

Needs neither onnx nor onnx_ir, so that a compiled model starts without them.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from .. import _native
from ..errors import InvalidInputError, ShapeError, memory_for
from .tensor import Tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..bodies import ControlRunner
    from ..reference import NodeRunner
    from .choice import Choice
    from .program import Step


@dataclass(eq=False)
class HostStep:
    """A node that Python runs between native steps. Inputs and outputs: Tensor, or the name of a Python object."""

    call: NodeRunner | ControlRunner
    inputs: list[Tensor | str | None]
    captured: dict[str, Tensor | str]  # what the node's subgraphs read
    outputs: list[Tensor | str | None]
    node: str
    op_type: str
    reason: str  # why there is no native step

    def touch(self, index: int) -> None:
        for tensor in self.tensors():
            tensor.buffer.touch(index)

    @property
    def copied_bytes(self) -> int:
        """What the evaluator's own copies of the node's inputs and outputs may take."""
        return sum(tensor.size * tensor.dtype.itemsize for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        """What the step reads and writes in memory."""
        return [t for t in (*self.inputs, *self.captured.values(), *self.outputs) if isinstance(t, Tensor)]


class FallbackStep(HostStep):
    """A node that the reference evaluator computes."""


class ControlStep(HostStep):
    """A node whose bodies have plans of their own."""


@dataclass(eq=False)
class Plan:
    """A prepared run for one set of input shapes.

    Regions of a run: 0 the arena, then `inputs`, then `outputs` in order. `rest` are the nodes not covered;
    `cut_values` those outputs whose contents they depend on, `passing` the feeds that they read. `counts`: output of which only the
    first entries of an axis are meant -> the output that counts them, and the axis.
    """

    program: _native.Program
    steps: list
    inputs: list[str]
    outputs: dict[str, tuple[tuple[int, ...], np.dtype]]  # handed out as arrays
    objects: list[str]           # handed out as Python objects
    constants: dict[str, np.ndarray]
    arena_bytes: int
    fused: dict[str, str]        # BatchNorm node -> the nodes whose kernels do its work
    choices: dict[str, Choice] = field(default_factory=dict)  # node -> its algorithm, where there were several
    rest: tuple[ir.Node, ...] = ()
    cut_values: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()
    counts: dict[str, tuple[str, int]] = field(default_factory=dict)
    stretches: list[tuple[int, int] | HostStep] = field(init=False)  # native steps [first, last) of the program, Python's
    named: bool = field(init=False)  # whether Python objects are looked up by name
    arenas: list[_native.Arena] = field(default_factory=list)  # idle ones, of all plans of a session; a run borrows one

    def __post_init__(self) -> None:
        self.stretches, at = [], 0
        for host, steps in groupby(self.steps, key=lambda s: isinstance(s, HostStep)):
            steps = list(steps)
            if host:
                self.stretches += steps
            else:
                self.stretches.append((at, at + len(steps)))
                at += len(steps)
        self.named = bool(self.objects) or any(isinstance(stretch, HostStep) for stretch in self.stretches)

    def arena(self) -> _native.Arena:
        """Memory for a run, which gives it back to `arenas`."""
        try:
            arena = self.arenas.pop()
        except IndexError:
            return _native.Arena(self.arena_bytes)
        return arena if arena.nbytes >= self.arena_bytes else _native.Arena(self.arena_bytes)

    def require_inside(self, faulty: int) -> None:
        """Raises ShapeError if this is a native step and not -1: see `Program.run`."""
        if faulty >= 0:
            step = [s for s in self.steps if not isinstance(s, HostStep)][faulty]
            raise ShapeError(f"node {step.node!r} ({step.op.name}): an index that the model computes lies outside its tensor")


def plan_key(values: dict[str, object], rest: tuple = (), fixed: tuple[str, ...] = ()) -> tuple:
    """What tells plans apart: the nodes left for them, the shapes of their feeds, and the contents of those named in `fixed`."""
    return (rest, *[(n, v.shape, v.dtype, v.tobytes() if n in fixed else None) if isinstance(v, np.ndarray) else n
                     for n, v in values.items()])


def execute(plan: Plan, values: dict[str, object], objects: dict[str, object], threads: int, seconds: dict | None = None,
            out: Mapping[str, np.ndarray] | None = None) -> dict[str, object]:
    """What leaves the plan, by name. values: its feeds; objects: constants that are no arrays of numbers; seconds: receives step ->
    list of seconds; out: arrays that outputs are written to, by name."""
    outputs = {n: _receiving(n, out[n], shape, dtype) if out and n in out and n not in plan.counts else np.empty(shape, dtype)
               for n, (shape, dtype) in plan.outputs.items()}
    arena = plan.arena()
    regions = [arena, *[dense(values[n]) for n in plan.inputs], *outputs.values()]
    objects = {**objects, **values} if plan.named else {}
    clock = np.zeros(len(plan.program)) if seconds is not None else None
    host_seconds: dict[HostStep, dict[Step | HostStep, float]] = {}
    for stretch in plan.stretches:
        if not isinstance(stretch, HostStep):
            faulty = plan.program.run(regions, threads, *stretch, clock)
            plan.require_inside(faulty)
            continue
        began, inner = _native.now(), {}
        _run_host(stretch, regions, objects, threads, None if clock is None else inner)
        inner = {step: sum(times) for step, times in inner.items()}  # all iterations of a body
        host_seconds[stretch] = {stretch: _native.now() - began - sum(inner.values()), **inner}
    if clock is not None:
        native = iter(clock)
        for step in plan.steps:
            for each, spent in (host_seconds.get(step) or {step: next(native)}).items():
                seconds.setdefault(each, []).append(float(spent))
    plan.arenas.append(arena)
    for name, (count, axis) in plan.counts.items():
        entries = (*[slice(None)] * axis, slice(int(outputs.pop(count)[0])))
        if name in outputs:
            outputs[name] = np.array(outputs[name][entries], order="C")
    if plan.constants or plan.objects:
        outputs |= {n: v.copy() for n, v in plan.constants.items()} | {n: objects[n] for n in plan.objects}
    return outputs


def dense(array: np.ndarray) -> np.ndarray:
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.require(array, requirements="CA")


def deliver(results: dict[str, object], out: Mapping[str, np.ndarray] | None) -> dict[str, object]:
    """The results, those in `out` in the arrays given there. Raises InvalidInputError if one does not fit."""
    for name, array in (out or {}).items():
        value = results[name]
        if value is not array:
            if not isinstance(value, np.ndarray):
                raise InvalidInputError(f"out[{name!r}]: this output is a {type(value).__name__}, not an array")
            _receiving(name, array, value.shape, value.dtype)[...] = value
            results[name] = array
    return results


def _receiving(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The array that is to receive an output, if it fits."""
    if array.shape != shape or array.dtype != dtype:
        raise InvalidInputError(f"out[{name!r}]: {dtype} of shape {list(shape)} expected, got {array.dtype} of {list(array.shape)}")
    return array


def _run_host(step: HostStep, regions: list, objects: dict[str, object], threads: int, seconds: dict | None) -> None:
    leaves = any(isinstance(target, str) for target in step.outputs)  # a result may be a view of an argument: the arena goes on

    def fetch(source: Tensor | str | None):
        if source is None or isinstance(source, str):
            return None if source is None else objects[source]
        return np.array(_array(source, regions), order="C", copy=True if leaves else None)

    with memory_for(f"node {step.node!r} ({step.op_type})"):
        given = [fetch(s) for s in step.inputs], {n: fetch(s) for n, s in step.captured.items()}
        results = step.call.run(*given, threads, seconds) if isinstance(step, ControlStep) else step.call.run(*given)
    for target, value in zip(step.outputs, results):
        if isinstance(target, Tensor):
            if np.shape(value) != target.shape:
                raise ShapeError(f"node {step.node!r} ({step.op_type}) gave shape {list(np.shape(value))}, "
                                 f"{list(target.shape)} was inferred")
            _array(target, regions)[...] = value
        elif target is not None:
            objects[target] = value


def _array(t: Tensor, regions: list) -> np.ndarray:
    """The tensor as a NumPy view of the run's memory."""
    if t.buffer.kind == "const":
        raw = t.buffer.array.reshape(-1).view(np.uint8)
    else:
        region = regions[t.buffer.region]
        raw = np.frombuffer(region, np.uint8) if isinstance(region, _native.Arena) else region.reshape(-1).view(np.uint8)
    offset = t.offset + (t.buffer.offset if t.buffer.kind == "arena" else 0)
    item = t.dtype.itemsize
    if prod(t.shape) == 0:
        return np.empty(t.shape, t.dtype)
    return np.ndarray(t.shape, t.dtype, raw, offset, [s * item for s in t.strides])
