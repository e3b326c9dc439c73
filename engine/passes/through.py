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

from . import affine, linear
from .affine import Affine, Channels
from .context import GraphContext, is_op, no_rule, node_name
from .movement import MOVEMENTS, Grid
from .rounding import rounded


def apply(context: GraphContext) -> bool:
    """Fold BatchNormalizations and arithmetic with constants into the linear layers behind such operators."""
    modified = False
    for node in context.nodes():
        if node.graph is None or not is_op(node, "BatchNormalization", "Mul", "Div", "Add", "Sub", "Neg"):
            continue
        varying = [index for index, value in enumerate(node.inputs[:2]) if context.tensor(value) is None]
        producer = node.inputs[varying[0]].producer() if varying else None
        if producer is not None and linear.read(context, producer) is None:  # the layer's own rule knows better
            modified |= _fold(context, node, varying[0])
    return modified


def _fold(context: GraphContext, node: ir.Node, index: int) -> bool:
    source = node.inputs[index]
    if is_op(node, "BatchNormalization"):
        step = _batchnorm(context, node, source)
    else:
        step = _arithmetic(context, node, source)
    path = _Path(context, node.graph)
    if step is None:
        return False
    refusal = path.into(node, index, step) if isinstance(step, Affine) else step
    if refusal is not None:
        if is_op(node, "BatchNormalization"):
            context.kept(node, f"through {', '.join(path.between)}: {refusal}" if path.between else refusal)
        return False
    for change in path.changes:
        change()
    if is_op(node, "BatchNormalization"):
        context.folded(node, *path.layers)
    context.supersede(node.outputs[0], node.inputs[index])
    context.remove(node)
    return True


def _batchnorm(context: GraphContext, node: ir.Node, source: ir.Value) -> Affine | str:
    """The map of a BatchNormalization, as arrays of the rank of its input."""
    scale = context.array(node.inputs[1])
    if source.shape is None or len(source.shape) < 2 or scale is None:
        return "the rank of its input is unknown" if scale is not None else "its scale is not constant"
    rank = len(source.shape)
    step = affine.batchnorm(context, node, Channels(scale.size, from_end=rank - 1, rank=rank, least_rank=rank))
    return step if isinstance(step, str) else step.each(lambda array: array.reshape(1, -1, *(1,) * (rank - 2)))


def _arithmetic(context: GraphContext, node: ir.Node, source: ir.Value) -> Affine | None:
    """The map of Add, Sub, Mul, Div or Neg with a constant of any shape, as arrays of the rank of its input."""
    step = affine.elementwise(context, node, source, Grid(source.shape))
    point = (1,) * len(source.shape or ())
    return None if step is None else Affine(np.ones(point), np.zeros(point)).then(step)


class _Path:
    """The way of one map to the weights: the changes to make, if there is no refusal, and the layers that take it."""

    def __init__(self, context: GraphContext, graph: ir.Graph) -> None:
        self.context, self.graph = context, graph
        self.changes: list[Callable[[], None]] = []
        self.layers: list[ir.Node] = []
        self.between: list[str] = []  # the operators on the way, for the reason

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
        source = [each for each in node.inputs if each is not None and context.tensor(each) is None]
        if len(source) == 1:
            step = _arithmetic(context, node, source[0])
            if step is not None:
                return self._past(reader, index, node, step.then(total))
        self.between.append(f"{node.op_type} '{node_name(node)}'")
        if is_op(node, "Concat"):
            refusal = self._into_parts(node, total)
        elif is_op(node, "Add", "Sum", "Sub") and len(source) == len(node.inputs):
            refusal = self._into_terms(node, total)
        elif node.domain == "" and node.op_type in MOVEMENTS:
            moved = MOVEMENTS[node.op_type](context, node, value, total)
            refusal = moved if isinstance(moved, str) else self.into(node, 0, moved)
        else:
            self.between.pop()
            refusal = no_rule(value)
        self.changes.append(lambda: context.rename(value))
        return refusal

    def _past(self, reader: ir.Node, index: int, node: ir.Node, total: Affine) -> str | None:
        """Through arithmetic with a constant, which becomes part of the map."""
        source = next(i for i, each in enumerate(node.inputs) if self.context.tensor(each) is None)

        def bypass() -> None:
            reader.replace_input_with(index, node.inputs[source])
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
        change = layer.absorb(self.context, total.each(lambda array: np.broadcast_to(array, shape).ravel()))
        if isinstance(change, str):
            return change

        def commit() -> None:
            value = layer.node.outputs[0]
            result = change()
            result.type, result.shape = value.type, value.shape
            reader.replace_input_with(index, result)
            self.context.rename(result)

        self.changes.append(commit)
        self.layers.append(layer.node)
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
