"""Per-channel affine maps y = scale * x + shift, and the nodes that are one."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from .context import GraphContext, attribute, is_op
from .training import is_training


class Affine(NamedTuple):
    """y = scale * x + shift: two float64 vectors of one length, per channel, or arrays that broadcast to a tensor."""

    scale: np.ndarray
    shift: np.ndarray

    @classmethod
    def identity(cls, channels: int) -> Affine:
        return cls(np.ones(channels), np.zeros(channels))

    def each(self, change: Callable[[np.ndarray], np.ndarray]) -> Affine:
        """The map with the same change of shape made to scale and shift."""
        return Affine(change(self.scale), change(self.shift))

    def shrunk(self) -> Affine:
        """The map with size 1 along the axes on which neither scale nor shift varies."""
        scale, shift = self.scale, self.shift
        for axis in range(scale.ndim):
            first = (slice(None),) * axis + (slice(0, 1),)
            if (scale == scale[first]).all() and (shift == shift[first]).all():
                scale, shift = scale[first], shift[first]
        return Affine(scale, shift)

    def then(self, after: Affine) -> Affine:
        """This map followed by another."""
        return Affine(*np.broadcast_arrays(after.scale * self.scale, after.scale * self.shift + after.shift))


class Channels(NamedTuple):
    """Which axis of a tensor holds its channels.

    Attributes:
        count: the number of channels.
        from_end: the axis, counted from the last, which is 1.
        rank: the tensor's rank, or None where it is unknown.
        least_rank: what the rank is at least.
    """

    count: int
    from_end: int
    rank: int | None
    least_rank: int

    def vector(self, array: np.ndarray) -> np.ndarray | None:
        """A broadcast operand as a float64 per channel; None if it varies along other axes or enlarges the tensor."""
        if array.ndim > self.least_rank or array.size not in (1, self.count):
            return None
        if array.size > 1 and (array.ndim < self.from_end or array.shape[-self.from_end] != self.count):
            return None
        return np.broadcast_to(array.astype(np.float64).ravel(), self.count)


def batchnorm(context: GraphContext, node: ir.Node, channels: Channels) -> Affine | str:
    """A BatchNormalization in inference as an affine map, or the reason why it is none.

    scale = gamma / sqrt(variance + epsilon), shift = beta - mean * scale, in float64, of all operator sets. `spatial=0` (before 9)
    normalises every position for itself.
    """
    opset = context.opset(node)
    if is_training(node, opset):
        return "it is in training mode: its statistics come from the batch"
    parameters = []
    for what, value in zip(("scale", "bias", "mean", "variance"), node.inputs[1:]):
        array = context.array(value)
        if array is None:
            return f"its {what} '{value.name}' {not_constant(value)}"
        if array.ndim != 1:
            return f"its {what} is per position, not per channel (spatial=0)"
        parameters.append(array)
    if opset < 9 and attribute(node, "spatial", 1) == 0 and channels.rank != 2:
        return "it normalises every position for itself (spatial=0)"
    if channels.rank is None:
        return "the rank of its input is unknown"
    if channels.rank - channels.from_end != 1:
        return "its channel axis is not the one that the weights produce"
    if any(array.size != channels.count for array in parameters):
        return f"it has {', '.join(str(array.size) for array in parameters)} channels where its input has {channels.count}"
    scale, bias, mean, variance = parameters = np.array(parameters, np.float64)
    if not np.isfinite(parameters).all():
        return "its parameters or statistics are not finite"
    spread = variance + attribute(node, "epsilon", 1e-5)
    if (spread <= 0).any():
        return f"variance + epsilon is not positive in channel {int(np.argmax(spread <= 0))}"
    scale = scale / np.sqrt(spread)
    return Affine(scale, bias - mean * scale)


STEPS = ("BatchNormalization", "Add", "Sub", "Mul", "Div", "Neg")  # operators that may be one


def step(context: GraphContext, node: ir.Node, value: ir.Value, channels: Channels) -> Affine | str | None:
    """What the node does to `value`: an affine map, the reason why a BatchNormalization is none, None for all else."""
    if not is_op(node, "BatchNormalization"):
        return elementwise(context, node, value, channels)
    return batchnorm(context, node, channels) if node.inputs[0] is value else None


def elementwise(context: GraphContext, node: ir.Node, value: ir.Value, channels: Channels) -> Affine | None:
    """Add, Sub, Mul, Div or Neg of `value` and a per-channel constant as an affine map, else None."""
    if is_op(node, "Neg"):
        return Affine(-np.ones(channels.count), np.zeros(channels.count))
    if not is_op(node, "Add", "Sub", "Mul", "Div"):
        return None
    first = node.inputs[0] is value
    tensor = context.tensor(node.inputs[1 if first else 0])
    if tensor is None or not tensor.dtype.is_floating_point():
        return None
    array = tensor.numpy()
    constant = channels.vector(_aligned(context, node, array, channels))
    if constant is None or not np.isfinite(constant).all():
        return None
    zero, one = np.zeros(channels.count), np.ones(channels.count)
    match node.op_type:
        case "Add":
            return Affine(one, constant)
        case "Sub":
            return Affine(one, -constant) if first else Affine(-one, constant)
        case "Mul":
            return Affine(constant, zero)
        case _:
            return Affine(1 / constant, zero) if first and constant.all() else None


def _aligned(context: GraphContext, node: ir.Node, array: np.ndarray, channels: Channels) -> np.ndarray:
    """The second operand as NumPy broadcasts it: before opset 7, `axis` says where its first dimension goes."""
    axis = attribute(node, "axis")
    if context.opset(node) >= 7 or axis is None or channels.rank is None:
        return array
    return array.reshape(array.shape + (1,) * (channels.rank - axis % channels.rank - array.ndim))


def not_constant(value: ir.Value) -> str:
    """Why `GraphContext.array` has no array for a value."""
    if value.is_initializer():
        return "is an overridable graph input"
    return "is a graph input" if value.is_graph_input() else "is computed at run time"
