"""Which nodes a plan can cover, and what is known of their results before anything runs."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ..errors import InvalidModelError, MemoryLimitError, ShapeError, UnsupportedError
from ..ops import base, composed
from ..ops.base import NotNative
from ..passes.context import subgraphs
from . import calls
from .facts import FEW, Fact, infer_node, known
from .graph import reads
from .tensor import ADDRESSABLE

HALVES = {np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)}  # that bodies have no kernels for

CONTRADICTIONS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # of numbers in a model


class Reach:
    """Which nodes a plan can cover: those whose inputs have known shapes. The shapes of their results are known, or counted (an
    operator of `Op.bound` computes into memory for the most there can be), or open, where the fallback runs the node."""

    def __init__(self, model: ir.Model, facts: dict[str, Fact], feeds: Iterable[str]) -> None:
        self.model, self.facts = model, facts
        self.computed = {name for name in feeds if facts[name].value is not None}  # values that the run has brought
        self.taken: list[ir.Node] = []
        self.open: set[ir.Node] = set()
        self.counted: dict[str, int] = {}  # output -> the axis whose length is counted
        self.whole: dict[ir.Node, str] = {}  # which are not planned as the nodes of their bodies, and why
        self.cut: dict[str, None] = {}     # values whose contents the rest waits for
        self._inferred: set[ir.Node] = set()
        self._postponed: set[ir.Node] = set()
        self._unbounded: set[ir.Node] = set()
        self._parts: dict[ir.Node, list[ir.Node]] = {}  # compositions whose results' lengths only some of their parts know

    def extend(self, nodes: Sequence[ir.Node]) -> list[ir.Node]:
        """Set `taken`; return the nodes that must wait."""
        self.taken, rest, missing, todo = [], [], set(), list(reversed(nodes))
        while todo:
            node = todo.pop()
            if node not in self._parts and calls.is_choice(node):
                self._choose(node)
            if node in self._parts:
                todo += reversed(self._parts[node])
                continue
            names = {value.name for value in node.outputs if value.name}
            if node in self._postponed or (missing and not missing.isdisjoint(reads(node))) or not self._infer(node):
                rest.append(node)
                missing |= names
                continue
            if node in self.open and self._take_apart(node):
                todo.append(node)
                continue
            self.taken.append(node)
            if node in self.open or not names.isdisjoint(self.counted):
                missing |= names
        return rest

    def _infer(self, node: ir.Node) -> bool:
        """Note the facts of the node's outputs; False if it waits for the contents of small inputs that decide their shape."""
        if node in self._inferred:
            return True
        found = infer_node(node, self.facts, self.model)
        if found is None and (names := self._deciding(node)):
            self._postponed.add(node)
            self.cut.update(dict.fromkeys(names))
            return False
        if found is None and (most := self._most(node)) is not None:
            found = [Fact(tuple(most[0]), most[1])]
            self.counted[node.outputs[0].name] = most[2]
        self._inferred.add(node)
        if found is None:
            self.open.add(node)
            return True
        _require_sizes(node, found)
        self.facts.update({v.name: f for v, f in zip(node.outputs, found) if v.name})
        return True

    def _choose(self, node: ir.Node) -> None:
        """Put the branch that an If chooses in its place, or wait for its condition."""
        name = node.inputs[0].name
        if known(fact := self.facts.get(name)) and fact.value is None:
            self.postpone(node, name)
        elif known(fact):
            self._parts[node] = calls.branch(self.model, node, fact.value)

    def _take_apart(self, node: ir.Node) -> bool:
        """Whether the node, whose results are as long as the data say, is a composition, which then takes its place for good."""
        self.open.discard(node)
        if composed.find(node) is not None and self.expands(node) and all(v is None or v.name in self.facts for v in node.inputs):
            try:
                self._parts[node] = calls.body(self.model, node, [v and self.facts[v.name] for v in node.inputs])
                return True
            except (NotNative, *CONTRADICTIONS):
                pass
        self.open.add(node)
        return False

    def _most(self, node: ir.Node) -> tuple | None:
        """What `Op.bound` says of the node; None where the fallback has to run it, or to refuse it."""
        op = base.find(node)
        if op is None or op.bound is None or node in self._unbounded:
            return None
        inputs = [None if v is None or not v.name else self.facts.get(v.name) for v in node.inputs]
        if not all(value is None or not value.name or known(fact) for value, fact in zip(node.inputs, inputs)):
            return None
        try:
            most = op.bound(node, inputs)
        except CONTRADICTIONS:
            return None
        return None if 0 in most[0] else most

    def _deciding(self, node: ir.Node) -> list[str]:
        """The small inputs, unknown so far, whose contents may decide the shape of a native operator's result."""
        op = base.find(node)
        if subgraphs(node) or (op is None and not calls.has_body(self.model, node)):
            return []
        deciding = node.inputs if op is not None and op.by_value else node.inputs[1:] if op is None or op.bound is None else ()
        names = [v.name for v in deciding if v is not None and v.name]
        facts = {v.name: self.facts.get(v.name) for v in node.inputs if v is not None and v.name}
        if not all(map(known, facts.values())):
            return []
        return [n for n in names if facts[n].value is None and len(facts[n].shape) <= 1 and prod(facts[n].shape) <= FEW]

    def expands(self, node: ir.Node) -> bool:
        """Whether the nodes of a body may stand in the node's place."""
        facts = [self.facts.get(v.name) for v in node.inputs if v is not None and v.name]
        return node not in self.whole and node not in self.open and calls.has_body(self.model, node) and (
            calls.is_call(self.model, node) or all(known(f) and f.dtype not in HALVES for f in facts))

    def expand(self, node: ir.Node, bodies: dict[ir.Node, list[ir.Node]]) -> None:
        """Put the node's body in its place, if shapes inside can be known."""
        inputs = [None if v is None or not v.name else self.facts.get(v.name) for v in node.inputs]
        try:
            bodies[node] = _infer_body(node, calls.body(self.model, node, inputs), self.facts, self.model)
        except (NotNative, UnsupportedError, InvalidModelError, *CONTRADICTIONS) as error:
            if calls.is_call(self.model, node):
                raise
            self.keep(node, bodies, str(error))

    def keep(self, node: ir.Node, bodies: dict[ir.Node, list[ir.Node]], why: str) -> None:
        """The node's body cannot take its place."""
        bodies.pop(node, None)
        self.whole[node] = why

    def postpone(self, node: ir.Node, name: str) -> None:
        """The node waits until the contents of the value are known."""
        self._postponed.add(node)
        self.cut[name] = None
        self._forget(node)

    def unbound(self, node: ir.Node) -> None:
        """The node's operator refused: the fallback runs it."""
        self._unbounded.add(node)
        self._forget(node)

    def _forget(self, node: ir.Node) -> None:
        self._inferred.discard(node)
        for value in node.outputs:
            self.counted.pop(value.name, None)
            self.facts.pop(value.name, None)


def _infer_body(call: ir.Node, body: list[ir.Node], facts: dict[str, Fact], model: ir.Model) -> list[ir.Node]:
    """Note the facts of the body's values; the nodes, with branches in the place of Ifs."""
    nodes, todo, told = [], body[::-1], {v.name: facts[v.name] for v in call.outputs if v.name in facts}
    while todo:
        node = todo.pop()
        if calls.is_choice(node) and (condition := facts[node.inputs[0].name].value) is not None:
            todo += reversed(calls.branch(model, node, condition))
            continue
        nodes.append(node)
        found = infer_node(node, facts, model)
        if found is None:
            raise UnsupportedError(f"node {call.name!r} ({call.op_type}): inside its function, the shape of"
                                   f" {node.outputs[0].name!r} depends on data")
        _require_sizes(node, found)
        facts.update({v.name: f for v, f in zip(node.outputs, found) if v.name})
    for name, fact in told.items():  # later nodes were planned for that
        if known(fact) and facts[name].shape != fact.shape:
            wrong, facts[name] = facts[name], fact
            raise ShapeError(f"node {call.name!r} ({call.op_type}): {name!r} is {list(wrong.shape)}, not {list(fact.shape)}")
    return nodes


def _require_sizes(node: ir.Node, facts: list[Fact]) -> None:
    """Refuse what no memory can hold, and less than nothing."""
    for fact in facts:
        if fact.shape and min(fact.shape) < 0:
            raise ShapeError(f"node {node.name!r} ({node.op_type}): its output would have the shape {list(fact.shape)}")
        if known(fact) and prod(n or 1 for n in fact.shape) * fact.dtype.itemsize > ADDRESSABLE:  # NumPy refuses empty ones too
            raise MemoryLimitError(f"node {node.name!r} ({node.op_type}): its output of shape {list(fact.shape)} fits no memory")
