"""Running plans: one plan per input shape, kept; native stretches in one GIL-free call each, fallback nodes between them."""
from __future__ import annotations

import threading
from collections import OrderedDict
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from . import _native
from .errors import MemoryLimitError, ShapeError
from .plan import calls
from .plan.build import FallbackStep, Plan, make_plan
from .plan.facts import Fact
from .plan.lowering import Store
from .plan.options import PlanOptions
from .plan.tensor import Tensor

PLAN_LIMIT = 64  # plans kept per session; the least recently used one goes first


class Runner:
    """Computes chosen outputs of a prepared model. Thread-safe: a plan is immutable, and every run has an arena of its own."""

    def __init__(self, model: ir.Model, outputs: list[str], options: PlanOptions, store: Store | None = None) -> None:
        self.model, self.outputs, self.options = model, outputs, options
        self.nodes = list(calls.without_kernel_inlined(model, model.graph))
        self.store = store if store is not None else Store()
        self._objects = {  # strings and other types that no kernel reads, as onnx.reference has them
            name: onnx.numpy_helper.to_array(ir.to_proto(value.const_value)) for name, value in model.graph.initializers.items()
            if Fact.of_constant(value.const_value).dtype is None}
        self._plans: OrderedDict[tuple, Plan] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, feeds: dict[str, object], threads: int, seconds: dict | None = None) -> dict[str, object]:
        """Outputs by name. feeds: arrays (or Python objects for sequences); already checked against the model's inputs.

        seconds: receives step -> list of seconds, for profiling.
        """
        results: dict[str, object] = {}
        values, start, fixed = dict(feeds), 0, ()
        while True:
            plan = self._plan(values, start, fixed)
            got = self._execute(plan, values, threads, seconds)
            results.update((n, v) for n, v in got.items() if n in self.outputs)
            if plan.start is None:
                return {n: results[n] if n in results else feeds[n] for n in self.outputs}
            values, start, fixed = {**got}, plan.start, plan.cut_values

    def plan(self, feeds: dict[str, object]) -> Plan:
        """The (first) plan for feeds of these shapes."""
        return self._plan(dict(feeds), 0, ())

    @property
    def plans(self) -> list[Plan]:
        with self._lock:
            return list(self._plans.values())

    def _plan(self, values: dict[str, object], start: int, fixed: tuple[str, ...]) -> Plan:
        key = (start, *[(n, v.shape, v.dtype, v.tobytes() if n in fixed else None) if isinstance(v, np.ndarray) else n
                        for n, v in values.items()])
        with self._lock:
            if key in self._plans:
                self._plans.move_to_end(key)
                return self._plans[key]
            facts = {name: _fact(value, name in fixed) for name, value in values.items()}
            try:
                plan = make_plan(self.model, self.nodes, start, facts, self.outputs, self.store, self.options)
            except MemoryError as error:
                raise error if isinstance(error, MemoryLimitError) else MemoryLimitError(f"no memory for a plan: {error}") from error
            self._plans[key] = plan
            if len(self._plans) > PLAN_LIMIT:
                self._plans.popitem(last=False)
            return plan

    def _execute(self, plan: Plan, values: dict[str, object], threads: int, seconds: dict | None) -> dict[str, object]:
        try:
            arena = plan.arenas.pop()
        except IndexError:
            arena = None
        try:
            outputs = {n: np.empty(f.shape, f.dtype) for n, f in plan.outputs.items()}
            arena = _native.Arena(plan.arena_bytes) if arena is None else arena
        except MemoryError as error:
            raise MemoryLimitError(f"no memory for a run: {error}") from error
        regions = [arena, *(np.require(values[n], requirements="CA") for n in plan.inputs), *outputs.values()]
        objects: dict[str, object] = {**self._objects, **values}
        clock = np.zeros(len(plan.program)) if seconds is not None else None
        for stretch in plan.stretches:
            if not isinstance(stretch, FallbackStep):
                plan.program.run(regions, threads, *stretch, clock)
                continue
            began = _native.now()
            _run_fallback(stretch, regions, objects)
            if seconds is not None:
                seconds.setdefault(stretch, []).append(_native.now() - began)
        if clock is not None:
            native = (s for s in plan.steps if not isinstance(s, FallbackStep))
            for step, spent in zip(native, clock):
                seconds.setdefault(step, []).append(float(spent))
        plan.arenas.append(arena)
        return {**outputs, **{n: v.copy() for n, v in plan.constants.items()}, **{n: objects[n] for n in plan.objects}}


def _fact(value: object, fixed: bool) -> Fact:
    """What a plan may rely on of a value handed to it: its contents only if they are part of the plan's key."""
    fact = Fact.of(value)
    return fact if fixed or fact.value is None else Fact(fact.shape, fact.dtype)


def _run_fallback(step: FallbackStep, regions: list, objects: dict[str, object]) -> None:
    leaves = any(isinstance(target, str) for target in step.outputs)  # a result may be a view of an argument: the arena goes on

    def fetch(source: Tensor | str | None):
        if source is None or isinstance(source, str):
            return None if source is None else objects[source]
        return np.array(_array(source, regions), order="C", copy=True if leaves else None)

    try:
        results = step.call.run([fetch(s) for s in step.inputs], {n: fetch(s) for n, s in step.captured.items()})
    except MemoryError as error:
        raise MemoryLimitError(f"node {step.node!r} ({step.op_type}): {error}") from error
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
