"""From nodes and concrete input shapes to a plan that can run: infer, lower, place in memory, assemble."""
from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ..control import CONTROL
from ..errors import InvalidModelError, MemoryLimitError, ShapeError, UnsupportedError
from ..ops import base
from ..ops.base import NeedsValue, NotNative
from ..passes.context import node_name
from .facts import Fact, known
from .graph import GraphView, opsets, reads
from .lowering import Lowering
from .memory import plan_arena
from .options import PlanOptions
from .plan import ControlStep, FallbackStep, HostStep, Plan
from .program import Step, assemble
from .reach import Reach
from .store import Store
from .tensor import TYPES, Buffer, Tensor, row_strides

if TYPE_CHECKING:
    from ..bodies import ControlRunner
    from ..reference import NodeRunner


def make_plan(model: ir.Model, nodes: Sequence[ir.Node], feeds: dict[str, Fact], outputs: list[str], store: Store,
              options: PlanOptions) -> Plan:
    """Plan as many of the nodes as inputs of the given facts (a fact with a value is used as a constant) allow; `Plan.rest` are
    those that wait for what this plan computes.

    Raises ShapeError, UnsupportedError (native_only), MemoryLimitError.
    """
    facts = dict(feeds)
    for name, value in model.graph.initializers.items():
        if name not in facts:
            facts[name] = Fact.of_constant(value.const_value)
    bodies: dict[ir.Node, list[ir.Node]] = {}
    reach = Reach(model, facts, feeds)
    while True:
        rest = reach.extend(nodes)
        for node in reach.taken:
            if base.find(node) is None and node not in bodies and reach.expands(node):
                reach.expand(node, bodies)
        view = GraphView(model, _expanded(reach.taken, bodies), _leaving(reach.taken, rest, outputs, feeds))
        try:
            return _lower(view, facts, feeds, outputs, tuple(rest), reach, store, options)
        except NeedsValue as need:
            node = _owner(view.failed, bodies)
            if need.name in reads(node):
                reach.postpone(node, need.name)
            else:  # only a part of its body will know
                reach.keep(node, bodies, f"its steps depend on the contents of {need.name!r}")
        except _NotNativeCall as refused:
            reach.expand(refused.call, bodies)
        except _Unbounded as refused:
            reach.unbound(refused.node)


class _Unbounded(Exception):
    """An operator whose results are counted cannot serve this node."""

    def __init__(self, node: ir.Node) -> None:
        super().__init__(node.name)
        self.node = node


def _owner(node: ir.Node, bodies: dict[ir.Node, list[ir.Node]]) -> ir.Node:
    """The node of the graph in whose place this one stands."""
    call = next((call for call, body in bodies.items() if node in body), None)
    return node if call is None else _owner(call, bodies)


class _NotNativeCall(Exception):
    """No kernel can serve this call: its body takes the call's place."""

    def __init__(self, call: ir.Node) -> None:
        super().__init__(call.name)
        self.call = call


def _expanded(nodes: list[ir.Node], bodies: dict[ir.Node, list[ir.Node]]) -> list[ir.Node]:
    return [inner for node in nodes for inner in (_expanded(bodies[node], bodies) if node in bodies else [node])]


def _leaving(taken: list[ir.Node], rest: list[ir.Node], outputs: list[str], feeds: Iterable[str]) -> list[str]:
    """The values that must leave a plan: graph outputs, and what later nodes read."""
    produced = {v.name for n in taken for v in n.outputs} | set(feeds)
    later = dict.fromkeys(name for n in rest for name in reads(n))
    return [n for n in dict.fromkeys([*outputs, *later]) if n in produced or (n in outputs and not rest)]


def _lower(view: GraphView, facts, feeds, outputs, rest, reach: Reach, store, options) -> Plan:
    ctx = Lowering(view, facts, options, store)
    regions = [0]
    for name, fact in feeds.items():
        if known(fact) and fact.value is None:
            buffer = Buffer("region", prod(fact.shape) * fact.dtype.itemsize, region=len(regions))
            regions.append(buffer.nbytes)
            ctx.values[name] = Tensor(buffer, fact.shape, row_strides(fact.shape), fact.dtype)
    inputs = [n for n, f in feeds.items() if known(f) and f.value is None]
    passing = tuple(n for n in view.outputs if n in feeds and n not in outputs)
    leaving = [n for n in view.outputs if n not in passing]
    cut = dict.fromkeys([*reach.cut, *(n for n in view.outputs if n in feeds and feeds[n].value is not None)])  # known stays known
    constants = {n: np.array(facts[n].value) for n in leaving if n in facts and facts[n].value is not None}
    arrays = {n: facts[n] for n in leaving if known(facts.get(n)) and n not in constants}
    objects = [n for n in leaving if n not in constants and n not in arrays]
    made = {value.name for node in view.nodes for value in node.outputs}
    counted = {name: axis for name, axis in reach.counted.items() if name in made}
    ctx.counts = {name: f"{name}/count" for name in counted}
    for name in ctx.counts.values():
        arrays[name] = facts[name] = Fact((1,), np.dtype(np.int64))
    given = len(regions)
    for name, fact in arrays.items():
        buffer = Buffer("region", prod(fact.shape) * fact.dtype.itemsize, region=len(regions))
        ctx.afford(buffer.nbytes)
        regions.append(buffer.nbytes)
        ctx.placement.regions[name] = buffer
    for node in view.nodes:
        view.failed = ctx.node = node
        is_open = node in reach.open
        if node in ctx.done or (all(facts[v.name].value is not None for v in node.outputs if v.name in facts) and not is_open):
            continue
        _lower_node(ctx, node, options, is_open, reach)
    for name, fact in arrays.items():
        region = ctx.placement.regions[name]
        tensor = ctx.values.get(name)
        if tensor is None:
            raise InvalidModelError(f"no node computes {name!r}: its operator has no such output in this form")
        if tensor.buffer is not region:
            target = Tensor(region, tensor.shape, row_strides(tensor.shape), fact.dtype)  # an image may be kept as bf16 numbers
            _hand_out(ctx, tensor, target)
    regions[0] = plan_arena(ctx.buffers)
    handed_out = sum(regions[given:])
    copies = max((step.copied_bytes for step in ctx.steps if isinstance(step, HostStep)), default=0)
    if options.max_memory is not None and regions[0] + handed_out + store.nbytes + copies > options.max_memory:
        raise MemoryLimitError(f"the plan needs {regions[0]} bytes of arena, {handed_out} bytes for outputs, {copies} bytes for "
                               f"the fallback and {store.nbytes} bytes of weights; max_memory is {options.max_memory}")
    for step in ctx.steps:
        if isinstance(step, ControlStep):
            step.call.reserve(regions[0] + handed_out + store.nbytes + copies)
    program = assemble(options.isa, [s for s in ctx.steps if isinstance(s, Step)], regions)
    fused = {node_name(node): ", ".join(map(node_name, into)) for node, into in ctx.fused.items()}
    shapes = {name: (fact.shape, fact.dtype) for name, fact in arrays.items()}
    counts = {name: (ctx.counts[name], axis) for name, axis in counted.items()}
    return Plan(program, ctx.steps, inputs, shapes, objects, constants, regions[0], fused, ctx.choices, rest,
                tuple(cut) if rest else (), passing, counts, store.arenas)


def _hand_out(ctx: Lowering, tensor: Tensor, target: Tensor) -> None:
    try:
        ctx.copy(tensor, target)
    except NotNative as why:  # more dimensions than the kernel walks: NumPy copies them
        ctx.add(FallbackStep(_Copy(), [tensor], {}, [target], "output", "Identity", str(why)))


class _Copy:
    """The fallback call that only copies."""

    def run(self, inputs: list, scope=None) -> list:
        return inputs


def _lower_node(ctx: Lowering, node: ir.Node, options: PlanOptions, force_fallback: bool, reach: Reach) -> None:
    mark, reason = len(ctx.steps), "its output shape depends on data"
    if not force_fallback and all(known(f := ctx.facts.get(v.name)) and 0 in f.shape for v in node.outputs if v.name):
        for value in node.outputs:  # no elements, nothing to compute
            if value.name:
                ctx.output(value.name, image=False)
        return
    if not force_fallback:
        op = base.find(node)
        try:
            if op is None:
                raise NotNative(reach.whole.get(node, "no native kernel"))
            _require_types(ctx, node, op.types)
            op.lower(ctx, node)
            return
        except (ArithmeticError, LookupError, TypeError, ValueError, struct.error) as error:  # numbers that contradict one another
            wrong = InvalidModelError if reach.computed.isdisjoint(reads(node)) else ShapeError
            raise wrong(f"node {node.name!r} ({node.op_type}) cannot be planned: {error}") from error
        except NotNative as why:
            if reach.expands(node):
                raise _NotNativeCall(node) from why
            if any(v.name in ctx.counts for v in node.outputs):
                raise _Unbounded(node) from why
            reason = str(why)
            if len(ctx.steps) != mark:
                raise AssertionError(f"{node.op_type} gave up after emitting steps") from why
    control = node.op_type in CONTROL and not node.domain
    if options.native_only and not control:
        raise UnsupportedError(f"node {node.name!r} ({node.op_type}) has no native kernel here: {reason}")
    runner = _control(ctx, node, options) if control else _reference(ctx, node)

    def argument(name: str) -> Tensor | str:
        return ctx.tensor(name) if name in ctx.values or known(ctx.facts.get(name)) else name

    inputs = [argument(name) if name else None for name in runner.inputs]
    scope = {name: argument(name) for name in runner.captured}
    outputs: list[Tensor | str | None] = []
    for value in node.outputs:
        fact = ctx.facts.get(value.name)
        if not value.name:
            outputs.append(None)
        elif known(fact) and not force_fallback:
            outputs.append(ctx.output(value.name, image=False))
        else:
            outputs.append(value.name)
    ctx.add((ControlStep if control else FallbackStep)(runner, inputs, scope, outputs, node_name(node), node.op_type, reason))


def _reference(ctx: Lowering, node: ir.Node) -> NodeRunner:
    from ..reference import NodeRunner

    return NodeRunner(node, opsets(ctx.graph.model, node))


def _control(ctx: Lowering, node: ir.Node, options: PlanOptions) -> ControlRunner:
    """One for all plans, as long as any of them needs it."""
    runner = ctx.store.controls.get(node)
    if runner is None:
        runner = ctx.store.controls[node] = ctx.store.control(node, ctx.graph.model, options)
    return runner


def _require_types(ctx: Lowering, node: ir.Node, allowed: tuple[str, ...]) -> None:
    for value in [*node.inputs[:1], *node.outputs[:1]]:
        fact = ctx.facts.get(value.name) if value is not None else None
        if value is not None and value.name and (fact is None or TYPES.get(fact.dtype) not in allowed):
            raise NotNative(f"data type {None if fact is None else fact.dtype}")
