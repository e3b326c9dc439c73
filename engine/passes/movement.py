"""Operators that move, pick or average elements, and what a map of their output is as a map of their input.

Maps are two arrays, scale and shift, that broadcast to the tensor. Each rule takes the node, the output that is
mapped and its map, and returns the map of the node's first input or the reason why there is none.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from .affine import Affine
from .context import GraphContext, attribute, node_name
from .operands import adds_border, integers, padding

_BRUTE_FORCE_LIMIT = 1 << 24  # elements of a tensor whose map is spread out to follow a Reshape


class Grid(NamedTuple):
    """A tensor's shape as `affine.elementwise` asks for channels: constants may vary along any axis."""

    shape: ir.Shape | None
    count: int = 1

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    def vector(self, array: np.ndarray) -> np.ndarray | None:
        """A broadcast operand with the tensor's rank; None if it enlarges the tensor, or may."""
        if self.shape is None or array.ndim > self.rank:
            return None
        array = array.astype(np.float64).reshape((1,) * (self.rank - array.ndim) + array.shape)
        return array if self.contains(Affine(array, array)) else None

    def contains(self, total: Affine) -> bool:
        """Whether the map broadcasts to the tensor without enlarging it."""
        return self.shape is not None and self.rank == total.scale.ndim and \
            all(size in (1, there) for size, there in zip(total.scale.shape, self.shape))


def _reshape(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    return _reshaped(node, total, output.shape, node.inputs[0].shape)


def _reshaped(node: ir.Node, total: Affine, before: ir.Shape | None, after: ir.Shape | None) -> Affine | str:
    """Every element keeps its map; then axes along which it does not vary shrink."""
    if not before or not after:
        return _unknown(node)
    old, new = list(before), list(after)
    if total.scale.shape[0] == 1 and _static(old[1:]) and _static(new[1:]) and np.prod(old[1:]) == np.prod(new[1:]):
        old[0] = new[0] = 1  # the batch stays as it is, whatever its size
    if not _static(old) or not _static(new):
        return _unknown(node)
    if np.prod(old) > _BRUTE_FORCE_LIMIT or np.prod(old) != np.prod(new) or not np.prod(old):
        return f"{node.op_type} '{node_name(node)}' is too large to follow"
    return total.each(lambda array: np.broadcast_to(array, old).reshape(new)).shrunk()


def _squeeze(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    axes = _axes(context, node)
    return total.each(lambda array: np.expand_dims(array, axes)) if axes else _reshape(context, node, output, total)


def _unsqueeze(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    axes = _axes(context, node)
    return total.each(lambda array: np.squeeze(array, axes)) if axes else _unknown(node)


def _transpose(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    perm = attribute(node, "perm", range(total.scale.ndim)[::-1])
    return total.each(lambda array: array.transpose(np.argsort(perm)))


def _slice(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    if context.opset(node) < 10:
        starts, ends, axes, steps = attribute(node, "starts"), attribute(node, "ends"), attribute(node, "axes"), None
    else:
        starts, ends, axes, steps = (context.array(value) for value in (*node.inputs[1:], None, None)[:4])
        if starts is None or ends is None or any(
                value is not None and context.tensor(value) is None for value in node.inputs[3:]):
            return _unknown(node)
    axes = range(len(starts)) if axes is None else axes
    for place, axis in enumerate(int(axis) % total.scale.ndim for axis in axes):
        if total.scale.shape[axis] > 1:
            part = slice(int(starts[place]), int(ends[place]), 1 if steps is None else int(steps[place]))
            total = _scattered(node, axis, part, total)
            if isinstance(total, str):
                return total
    return total


def _split(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    """The other outputs keep their values: elsewhere along the axis the map is the identity."""
    axis = attribute(node, "axis", 0) % total.scale.ndim
    sizes = [None if each.shape is None else each.shape[axis] for each in node.outputs]
    if not _static(sizes):
        return _unknown(node)
    place = list(node.outputs).index(output)
    start = sum(sizes[:place])
    shape = [sizes[place] if each == axis else size for each, size in enumerate(total.scale.shape)]
    wide = total.each(lambda array: np.broadcast_to(array, shape))
    return _scattered(node, axis, slice(start, start + sizes[place]), wide)


def _scattered(node: ir.Node, axis: int, part: slice, total: Affine) -> Affine | str:
    shape = node.inputs[0].shape
    if shape is None or not isinstance(shape[axis], int):
        return _unknown(node)
    whole = [shape[axis] if each == axis else size for each, size in enumerate(total.scale.shape)]
    place = (slice(None),) * axis + (part,)
    result = Affine(np.ones(whole), np.zeros(whole))
    result.scale[place], result.shift[place] = total.scale, total.shift
    return result


def _pad(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    """Reflection and repetition move elements; zeros stay right where the map keeps zero."""
    if (total.scale.ndim > 2 and max(total.scale.shape[2:]) > 1) or total.scale.shape[0] > 1:
        return _varies(node)
    found = padding(context, node)
    if found is None or found[0].shape[1] != total.scale.ndim or found[0][:, 1].any():
        return f"Pad '{node_name(node)}' may pad the channels"
    if attribute(node, "mode", "constant") != "constant":
        return total
    if found[1] != 0 or total.shift.any():
        return f"Pad '{node_name(node)}' inserts values that its shift would change"
    return total


def _average_pool(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    """Averages commute with the scale, and with the shift where the padding's zeros are not counted in."""
    counted = context.opset(node) < 7 or attribute(node, "count_include_pad", 0)
    if adds_border(node) and counted and total.shift.any():
        return f"AveragePool '{node_name(node)}' counts its padding, which its shift would change"
    return _spatial(context, node, output, total)


def _max_pool(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    if len(node.outputs) > 1 and node.outputs[1].name:
        return f"{node.op_type} '{node_name(node)}' also gives indices"
    if not (total.scale > 0).all():
        return "its scale is not positive in every channel"
    return _spatial(context, node, output, total)


def _spatial(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    return _varies(node) if max(total.scale.shape[2:], default=1) > 1 else total


def _reduce_mean(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    axes = _axes(context, node)
    if not axes or node.inputs[0].shape is None:
        return _unknown(node)
    if not attribute(node, "keepdims", 1):
        total = total.each(lambda array: np.expand_dims(array, axes))
    return total if all(total.scale.shape[axis] == 1 for axis in axes) else _varies(node)


def _resize(context: GraphContext, node: ir.Node, output: ir.Value, total: Affine) -> Affine | str:
    """Interpolation weights add up to one, unless values from outside come in."""
    shape = node.inputs[0].shape
    if attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return f"{node.op_type} '{node_name(node)}' may read outside its input"
    if shape is None or output.shape is None or shape[1] != output.shape[1] or not isinstance(shape[1], int):
        return _unknown(node)
    return _spatial(context, node, output, total)


def _axes(context: GraphContext, node: ir.Node) -> tuple[int, ...]:
    """Those of a reduction, Squeeze or Unsqueeze; none where they are not known."""
    return tuple(integers(context, node, 1, "axes") or ())


def _static(sizes: list) -> bool:
    return all(isinstance(size, int) for size in sizes)


def _unknown(node: ir.Node) -> str:
    return f"the sizes of {node.op_type} '{node_name(node)}' are not known in advance"


def _varies(node: ir.Node) -> str:
    return f"its map varies along an axis that {node.op_type} '{node_name(node)}' changes"


def moved_forward(context: GraphContext, node: ir.Node, total: Affine) -> Affine | str:
    """The other way round: the map of the node's output that a map of its first input becomes."""
    output = node.outputs[0]
    match node.op_type:
        case "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze":
            return _reshaped(node, total, node.inputs[0].shape, output.shape)
        case "Transpose":
            return total.each(lambda array: array.transpose(attribute(node, "perm", range(array.ndim)[::-1])))
        case "ReduceMean":
            axes = _axes(context, node)
            if not axes:
                return _unknown(node)
            if any(total.scale.shape[axis] > 1 for axis in axes):
                return _varies(node)
            return total if attribute(node, "keepdims", 1) else total.each(lambda array: np.squeeze(array, axes))
        case "Slice" | "Split":
            return f"{node.op_type} '{node_name(node)}' reads it"
        case _:  # commutes
            return MOVEMENTS[node.op_type](context, node, output, total)


MOVEMENTS: dict[str, Callable[[GraphContext, ir.Node, ir.Value, Affine], Affine | str]] = {
    "Identity": lambda context, node, output, total: total,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _spatial,
    "ReduceMean": _reduce_mean,
    "MaxPool": _max_pool,
    "GlobalMaxPool": _max_pool,
    "Resize": _resize,
    "Upsample": _resize,
}
