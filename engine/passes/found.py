"""A stretch of the graph that a pattern describes, and its replacement by one node."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from .context import GraphContext
from .expression import Atom
from .symbolic import Term


@dataclass(eq=False)
class Found:
    """`result` is computed of `x` alone, as the pattern says.

    Attributes:
        terms: the values computed of `x`, and what each of their dimensions runs over.
        blanks: what the pattern's blanks stand for.
    """

    context: GraphContext
    x: ir.Value
    result: ir.Value
    terms: dict[ir.Value, Term]
    place: dict[ir.Node, int]
    blanks: dict[str, object]

    @cached_property
    def nodes(self) -> list[ir.Node]:
        """The nodes between `x` and the result that have a formula, in graph order."""
        nodes, waiting = set(), [self.result]
        while waiting:
            node = waiting.pop().producer()
            if node not in nodes:
                nodes.add(node)
                waiting += [value for value in node.inputs if value is not self.x and value in self.terms]
        return sorted(nodes, key=self.place.__getitem__)

    @cached_property
    def shape_nodes(self) -> list[ir.Node] | None:
        """The nodes that read inner values for their shapes alone, which only the inside needs; None if others read them."""
        inside = set(self.nodes)
        waiting = [value for node in self.nodes for value in node.outputs if value is not self.result]
        while waiting:
            value = waiting.pop()
            users = set(value.consumers()) - inside
            allowed = ("Shape", "Size") if value in self.terms else _SHAPES
            if value.is_graph_output() or any(user.op_type not in allowed or user not in self.place for user in users):
                return None
            inside |= users
            waiting += [output for user in users for output in user.outputs]
        return sorted(inside - set(self.nodes), key=self.place.__getitem__)

    def replace(self, *nodes: ir.Node) -> ir.Value:
        """Let these nodes, in order, compute the result; the value that now stands for it."""
        context, old = self.context, sorted([*self.nodes, *self.shape_nodes], key=self.place.__getitem__)
        root = self.result.producer()
        nodes[-1].name = root.name
        root.append(nodes)
        context.supersede(self.result, nodes[-1].outputs[0])
        context.remove(*reversed(old))
        return nodes[-1].outputs[0]

    def atoms(self, *axes: int) -> frozenset[Atom]:
        """All parts of these axes of x."""
        return frozenset(atom for axis in axes for atom in self.terms[self.x].dims[axis])

    @property
    def rank(self) -> int:
        return len(self.terms[self.x].dims)

    def array(self, name: str, *axes: int) -> np.ndarray | None:
        """A `Weight` as a float64 array over these axes of x; None if it varies along others, or their sizes are open."""
        constant, sizes = self.blanks[name], [self.x.shape[axis] for axis in axes]
        if not all(isinstance(size, int) for size in sizes):
            return None
        if constant.array is None:
            return np.full(sizes, constant.number)
        if any(axis not in axes for axis, *_ in constant.array.atoms):
            return None
        places = dict(zip(axes, np.indices(sizes, sparse=True)))
        index = tuple(places[axis] // divisor % extent for axis, divisor, extent in constant.array.atoms)
        return np.broadcast_to(constant.array.data[index].astype(np.float64) * constant.number, sizes)


_SHAPES = ("Shape", "Size", "Gather", "Slice", "Concat", "Reshape", "Unsqueeze", "Squeeze", "Cast", "Identity", "Mul", "Div",
           "Equal", "Where")
Build = Callable[[Found], "ir.Value | None"]  # replaces what was found; None: it is left as it is
