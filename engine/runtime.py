"""Running a model: one plan per input shape, kept."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir

from . import tuned
from .bodies import ControlRunner
from .errors import memory_for
from .locks import lock
from .plan import calls
from .plan.build import make_plan
from .plan.facts import Fact
from .plan.options import PlanOptions
from .plan.plan import ControlStep, Plan, deliver, execute, plan_key
from .plan.store import Store
from .plan.turns import Turns, repeat
from .ports import Port

# Plans kept per session; the least recently used one goes first. Those that go on from what a run has found are small and many.
PLAN_LIMIT, REST_LIMIT = 64, 512


class Runner:
    """Computes chosen outputs of a prepared model. Thread-safe: a plan is immutable, and every run has an arena of its own."""

    def __init__(self, model: ir.Model, outputs: list[str], options: PlanOptions, store: Store | None = None) -> None:
        self.model, self.outputs, self.options = model, outputs, options
        self.nodes = list(calls.without_kernel_inlined(model, model.graph))
        self.store = store if store is not None else Store(control=partial(ControlRunner, runner=Runner))
        self._objects = {  # strings and other types that no kernel reads, as onnx.reference has them
            name: onnx.numpy_helper.to_array(ir.to_proto(value.const_value)) for name, value in model.graph.initializers.items()
            if Fact.of_constant(value.const_value).dtype is None}
        self._plans: OrderedDict[tuple, Plan] = OrderedDict()
        self._rests: OrderedDict[tuple, Plan] = OrderedDict()
        self._lock = lock()

    def run(self, feeds: dict[str, object], threads: int, seconds: dict | None = None,
            out: Mapping[str, np.ndarray] | None = None, turns: Turns | None = None) -> dict[str, object]:
        """Outputs by name. feeds: arrays (or Python objects for sequences); already checked against the model's inputs.

        seconds: receives step -> list of seconds, for profiling. out: arrays that outputs are written to, by name. turns: that this
        is the first of several iterations, which are run as well if that needs no Python (`turns.done` says so).
        """
        results, values, rest, fixed = dict(feeds), feeds, (), ()
        while True:
            plan = self._plan(values, rest, fixed)
            if turns is not None and not rest and (many := repeat(plan, values, turns, threads, seconds)) is not None:
                return many
            got = execute(plan, values, self._objects, threads, seconds, out)
            if not plan.rest:
                results.update(got)
                return deliver({n: results[n] for n in self.outputs}, out)
            results.update((n, v) for n, v in got.items() if n in self.outputs)
            values, rest, fixed = {**{n: values[n] for n in plan.passing}, **got}, plan.rest, plan.cut_values

    def plan(self, feeds: dict[str, object]) -> Plan:
        """The (first) plan for feeds of these shapes."""
        return self._plan(dict(feeds), (), ())

    @property
    def plans(self) -> list[Plan]:
        """All plans that are kept, those of bodies included."""
        with self._lock:
            own = [*self._plans.values(), *self._rests.values()]
        return own + [plan for control in self._controls(own) for plan in control.plans]

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights and constants that the plans share."""
        with self._lock:
            own = [*self._plans.values(), *self._rests.values()]
        return self.store.nbytes + sum(control.weight_bytes for control in self._controls(own))

    @staticmethod
    def _controls(plans: list[Plan]) -> dict:
        return dict.fromkeys(step.call for plan in plans for step in plan.steps if isinstance(step, ControlStep))

    def _plan(self, values: dict[str, object], rest: tuple[ir.Node, ...], fixed: tuple[str, ...]) -> Plan:
        key = plan_key(values, rest, fixed)
        plans, limit = (self._rests, REST_LIMIT) if rest else (self._plans, PLAN_LIMIT)
        with self._lock:
            if key in plans:
                plans.move_to_end(key)
                return plans[key]
            facts = {name: _fact(value, name in fixed) for name, value in values.items()}
            options = self.options
            if options.tuned is None:
                shapes = {name: fact.shape for name, fact in facts.items() if fact.shape is not None}
                options = options._replace(tuned={} if rest else tuned.look_up(self.nodes, shapes, options))
            with memory_for("a plan"):
                plan = make_plan(self.model, rest or self.nodes, facts, self.outputs, self.store, options)
            plans[key] = plan
            if len(plans) > limit:
                plans.popitem(last=False)
            return plan


def port(value: ir.Value) -> Port:
    """The description of a graph input or output."""
    is_array = isinstance(value.type, ir.TensorType) and value.dtype != ir.DataType.STRING
    dims = None if value.shape is None else tuple(d if isinstance(d, int) else d.value for d in value.shape.dims)
    kind = str(value.type)
    if isinstance(value.type, ir.TensorType) and value.dtype is not None:
        kind = f"tensor({onnx.TensorProto.DataType.Name(int(value.dtype)).lower()})"
    known = is_array and value.dtype not in (None, ir.DataType.UNDEFINED)
    return Port(value.name, kind, is_array, value.dtype.numpy() if known else None, dims)


def _fact(value: object, fixed: bool) -> Fact:
    """What a plan may rely on of a value handed to it: its contents only if they are part of the plan's key."""
    fact = Fact.of(value)
    return fact if fixed or fact.value is None else Fact(fact.shape, fact.dtype)
