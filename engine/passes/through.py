"""BatchNormalizations seen through operators that only move, pick, join or average: their map goes to what is behind.

    Conv -- Concat -- Flatten -- BatchNorm          Conv' -- Concat -- Flatten
    Conv --/                                   ->   Conv' --/

A map reaches the weights on every path or nothing changes. On the way it is two arrays, scale and shift, that
broadcast to the tensor at hand, so a Reshape that splits or mixes axes is handled like any other.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from . import arithmetic, linear
from .affine import Affine
from .context import GraphContext, is_op, no_rule, node_name
from .movement import MOVEMENTS, Grid
from .rounding import rounded


def apply(context: GraphContext) -> bool:
    """Fold BatchNormalizations and arithmetic with constants into the linear layers behind such operators."""
    modified = False
    for node in context.nodes():
        found = arithmetic.read(context, node) if node.graph is not None else None
        if found is None:
            continue
        producer = node.inputs[found.source].producer()
        if isinstance(found.step, str):
            context.kept(node, found.step)
        elif producer is not None and linear.read(context, producer) is None:  # the layer's own rule knows better
            modified |= _fold(context, node, found.source, found.step)
    return modified


def _fold(context: GraphContext, node: ir.Node, index: int, step: Affine) -> bool:
    path = _Path(context, node.graph)
    refusal = path.plan(node, index, step)
    if refusal is not None:
        if is_op(node, "BatchNormalization"):
            context.kept(node, f"through {', '.join(path.between)}: {refusal}" if path.between else refusal)
        return False
    context.carry_out(path.changes, node, path.layers)
    context.supersede(node.outputs[0], node.inputs[index])
    context.remove(node)
    return True


class _Path:
    """The way of one map to the weights: the changes to make, if there is no refusal, and the layers that take it."""

    def __init__(self, context: GraphContext, graph: ir.Graph) -> None:
        self.context, self.graph = context, graph
        self.changes: list[Callable[[], None]] = []
        self.takers: list[tuple[ir.Node, int, linear.Linear, Affine]] = []
        self.between: list[str] = []  # the operators on the way, for the reason

    @property
    def layers(self) -> list[ir.Node]:
        return [layer.node for _, _, layer, _ in self.takers]

    def plan(self, reader: ir.Node, index: int, step: Affine) -> str | None:
        """Prepare all changes, those of the weights, which cost most, last; returns the reason for a refusal."""
        refusal = self.into(reader, index, step)
        weights = []
        for user, place, layer, vector in self.takers if refusal is None else ():
            change = layer.absorb(self.context, vector)
            if isinstance(change, str):
                return change
            weights.append(self._placed(user, place, layer, change))
        self.changes = weights + self.changes  # before arithmetic on the way is bypassed
        return refusal

    def _placed(self, reader: ir.Node, index: int, layer: linear.Linear, change: linear.Change) -> Callable[[], None]:
        """Puts the weights in place and lets the reader read their result."""
        def commit() -> None:
            value = layer.node.outputs[0]
            result = change()
            result.type, result.shape = value.type, value.shape
            reader.replace_input_with(index, result)
            self.context.rename(result)

        return commit

    def into(self, reader: ir.Node, index: int, total: Affine) -> str | None:
        """Plan for input `index` of `reader` to become the given map of what it is; else the reason why not."""
        context, value = self.context, reader.inputs[index]
        if context.tensor(value) is not None:
            return self._into_constant(reader, index, total)
        node = value.producer()
        if node is None or node.graph is not self.graph:
            return f"it normalises the graph input '{value.name}'"
        if context.sole_user(value) is None:
            return f"the output of '{node_name(node)}' has other readers"
        layer = linear.read(context, node)
        if layer is not None:
            return layer if isinstance(layer, str) else self._into_layer(reader, index, total, layer)
        found = arithmetic.read(context, node)
        if found is not None and isinstance(found.step, Affine):
            return self._past(reader, index, node, found.source, found.step.then(total))
        self.between.append(f"{node.op_type} '{node_name(node)}'")
        if is_op(node, "Concat"):
            refusal = self._into_parts(node, total)
        elif is_op(node, "Add", "Sum", "Sub"):
            refusal = self._into_terms(node, total)
        elif node.domain == "" and node.op_type in MOVEMENTS:
            moved = MOVEMENTS[node.op_type](context, node, value, total)
            refusal = moved if isinstance(moved, str) else self.into(node, 0, moved)
        else:
            self.between.pop()
            refusal = no_rule(value)
        self.changes.append(lambda: context.rename(value))
        return refusal

    def _past(self, reader: ir.Node, index: int, node: ir.Node, source: int, total: Affine) -> str | None:
        """Through a map, which becomes part of this one."""

        def bypass() -> None:
            reader.replace_input_with(index, node.inputs[source])
            if is_op(node, "BatchNormalization"):
                self.context.folded(node, *self.layers)
            self.context.remove(node)

        refusal = self.into(node, source, total)
        self.changes.append(bypass)
        return refusal

    def _into_constant(self, reader: ir.Node, index: int, total: Affine) -> str | None:
        tensor = self.context.tensor(reader.inputs[index])
        array = tensor.numpy()
        if not tensor.dtype.is_floating_point() or array.ndim != total.scale.ndim:
            return f"the constant '{reader.inputs[index].name}' does not fit its channels"
        array = rounded(array * total.scale + total.shift, array.dtype)
        if array is None:
            return f"the constant '{reader.inputs[index].name}' would overflow"
        hint = f"{reader.inputs[index].name}_folded"
        self.changes.append(lambda: self.context.set_constant(reader, index, array, hint))
        return None

    def _into_layer(self, reader: ir.Node, index: int, total: Affine, layer: linear.Linear) -> str | None:
        channels, rank = layer.channels, total.scale.ndim
        axis = rank - channels.from_end
        shape = tuple(channels.count if each == axis else 1 for each in range(rank))
        if channels.rank != rank or any(size not in (1, there) for size, there in zip(total.scale.shape, shape)):
            return "its channel axis is not the one that the weights produce"
        vector = total.each(lambda array: np.broadcast_to(array, shape).ravel())
        self.takers.append((reader, index, layer, vector))
        return None

    def _into_terms(self, node: ir.Node, total: Affine) -> str | None:
        """scale * (a + b) + shift: each term is scaled, the first one shifted."""
        for index, value in enumerate(node.inputs):
            if not Grid(value.shape).contains(total):
                return f"{node.op_type} '{node_name(node)}' broadcasts '{value.name}'"
            refusal = self.into(node, index, total if index == 0 else Affine(total.scale, np.zeros_like(total.shift)))
            if refusal is not None:
                return refusal
        return None

    def _into_parts(self, node: ir.Node, total: Affine) -> str | None:
        axis = node.attributes["axis"].as_int() % total.scale.ndim if "axis" in node.attributes else 1
        sizes = [None if value.shape is None else value.shape[axis] for value in node.inputs]
        if total.scale.shape[axis] == 1:
            parts = [total] * len(sizes)
        elif all(isinstance(size, int) for size in sizes):
            ends = np.cumsum(sizes)[:-1]
            parts = list(map(Affine, np.split(total.scale, ends, axis), np.split(total.shift, ends, axis)))
        else:
            return f"the sizes of what Concat '{node_name(node)}' joins are unknown"
        return next((refusal for index, part in enumerate(parts)
                     if (refusal := self.into(node, index, part)) is not None), None)
