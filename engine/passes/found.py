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


@dataclass(frozen=True, eq=False)
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

    def is_private(self) -> bool:
        """Whether nothing else reads what is inside, but for its shape where only the inside needs that."""
        inside = set(self.nodes)

        def closed(node: ir.Node) -> bool:
            return node in inside or (node.op_type in _SHAPES and bool(node.outputs) and all(map(unread, node.outputs)))

        def unread(value: ir.Value) -> bool:
            return not value.is_graph_output() and all(map(closed, value.consumers()))

        return all(unread(value) for node in inside for value in node.outputs if value is not self.result)

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


_SHAPES = ("Shape", "Size", "Gather", "Concat", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Cast", "Identity", "Mul", "Div")
Build = Callable[[Found], "ir.Value | None"]  # replaces what was found; None: it is left as it is
