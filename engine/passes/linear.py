"""The operators with constant weights, and how each takes a per-channel affine map of its output into them."""
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import onnx_ir as ir

from .affine import Affine, Channels, not_constant
from .context import GraphContext, attribute, is_op, node_name
from .rounding import rounded, rounded_product

Change = Callable[[], ir.Value]


class Linear(Protocol):
    """A node with constant weights.

    `absorb` prepares weights with which the node computes the affine map of its former output. It returns a function
    that puts them in place and returns the value that holds the result, or the reason why it refused.
    """

    node: ir.Node
    channels: Channels

    def absorb(self, context: GraphContext, affine: Affine) -> Change | str: ...


def read(context: GraphContext, node: ir.Node) -> Linear | str | None:
    """The node as a linear layer, the reason why its weights cannot change, or None for any other operator."""
    if is_op(node, "Conv", "ConvTranspose"):
        return _constant(context, node, (1, 2)) or _contradiction(context, node) or Convolution(context, node)
    if is_op(node, "Gemm"):
        return _constant(context, node, (1, 2)) or _contradiction(context, node) or Gemm(context, node)
    if is_op(node, "MatMul"):
        index = 1 if context.tensor(node.inputs[0]) is None else 0
        refusal = _constant(context, node, (index,))
        if refusal is None and len(context.tensor(node.inputs[index]).shape) < 2:
            return f"the weights of MatMul '{node_name(node)}' are a vector"
        return refusal or MatMul(context, node, index)
    return None


def refusal(context: GraphContext, node: ir.Node) -> str | None:
    """Why the second and third input of a Conv, Gemm or MatMul cannot change, or None if they can."""
    return _constant(context, node, (1, 2))


def _constant(context: GraphContext, node: ir.Node, indices: tuple[int, ...]) -> str | None:
    for index in indices:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            continue
        tensor = context.tensor(value)
        if tensor is None:
            return f"input '{value.name}' of {node.op_type} '{node_name(node)}' {not_constant(value)}"
        if not tensor.dtype.is_floating_point():
            return f"the weights of {node.op_type} '{node_name(node)}' are integers"
    return None


def _contradiction(context: GraphContext, node: ir.Node) -> str | None:
    """Why the shapes of a Conv, ConvTranspose or Gemm's weights are those of no such layer."""
    shape = context.tensor(node.inputs[1]).shape
    name = f"{node.op_type} '{node_name(node)}'"
    if len(shape) != 2 if is_op(node, "Gemm") else len(shape) < 3:
        return f"the weights of {name} have the shape {list(shape)}"
    groups = attribute(node, "group", 1)
    if not is_op(node, "Gemm") and (groups < 1 or shape[0] % groups):
        return f"{name} has {groups} groups and weights of shape {list(shape)}"
    return None


class Convolution:
    """Conv, weight [M, C/g, k...], or ConvTranspose, weight [C, M/g, k...], of any rank and number of groups g."""

    def __init__(self, context: GraphContext, node: ir.Node) -> None:
        self.node = node
        self.groups = attribute(node, "group", 1) if is_op(node, "ConvTranspose") else 0
        shape = context.tensor(node.inputs[1]).shape
        count, rank = shape[1] * self.groups if self.groups else shape[0], len(shape)
        self.channels = Channels(count, from_end=rank - 1, rank=rank, least_rank=rank)

    def absorb(self, context: GraphContext, affine: Affine) -> Change | str:
        weight, bias = _parameters(context, self.node)
        shape, spatial = weight.shape, (1,) * (weight.ndim - 2)
        if self.groups:  # channel m of group i is row m of the group's block of input channels
            blocks = weight.reshape(self.groups, -1, *shape[1:])
            scaled = rounded_product(blocks, affine.scale.reshape(self.groups, 1, -1, *spatial))
        else:
            scaled = rounded_product(weight, affine.scale.reshape(-1, 1, *spatial))
        bias = rounded(affine.shift if bias is None else affine.scale * bias + affine.shift, weight.dtype)
        if scaled is None or bias is None:
            return _overflow(self.node)

        def change() -> ir.Value:
            hint = self.node.inputs[1].name
            context.set_constant(self.node, 1, scaled.reshape(shape), f"{hint}_folded")
            context.set_constant(self.node, 2, bias, f"{hint}_bias")
            return self.node.outputs[0]

        return change


class Gemm:
    """alpha * A' * B' + beta * C with constant B, and C where there is one."""

    def __init__(self, context: GraphContext, node: ir.Node) -> None:
        self.node = node
        self.transposed = bool(attribute(node, "transB", 0))
        count = context.tensor(node.inputs[1]).shape[0 if self.transposed else 1]
        self.channels = Channels(count, from_end=1, rank=2, least_rank=2)

    def absorb(self, context: GraphContext, affine: Affine) -> Change | str:
        weight, bias = _parameters(context, self.node)
        scaled = rounded_product(weight, affine.scale[:, None] if self.transposed else affine.scale)
        beta = attribute(self.node, "beta", 1.0)
        bias = rounded(affine.shift if bias is None else beta * affine.scale * bias + affine.shift, weight.dtype)
        if scaled is None or bias is None:
            return _overflow(self.node)

        def change() -> ir.Value:
            hint = self.node.inputs[1].name
            context.set_constant(self.node, 1, scaled, f"{hint}_folded")
            context.set_constant(self.node, 2, bias, f"{hint}_bias")
            self.node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
            if context.opset(self.node) < 7:
                self.node.attributes["broadcast"] = ir.AttrInt64("broadcast", 1)
            return self.node.outputs[0]

        return change


class MatMul:
    """A product with constant weights, A @ W or W @ A. It has no bias: a shift becomes an Add after it."""

    def __init__(self, context: GraphContext, node: ir.Node, index: int) -> None:
        self.node, self.index = node, index
        weight, output, from_end = context.tensor(node.inputs[index]).shape, node.outputs[0].shape, 2 - index
        self.channels = Channels(weight[-from_end], from_end, rank=None if output is None else len(output),
                                 least_rank=len(weight))

    def absorb(self, context: GraphContext, affine: Affine) -> Change | str:
        weight = context.array(self.node.inputs[self.index])
        column = (-1,) + (1,) * (self.channels.from_end - 1)
        scaled = rounded_product(weight, affine.scale.reshape(column))
        shift = rounded(affine.shift, weight.dtype)
        if scaled is None or shift is None:
            return _overflow(self.node)

        def change() -> ir.Value:
            name, result = self.node.inputs[self.index].name, self.node.outputs[0]
            context.set_constant(self.node, self.index, scaled, f"{name}_folded")
            if not shift.any():
                return result
            context.rename(result)
            add = ir.node("Add", [result, context.constant(shift.reshape(column), f"{name}_bias")])
            if context.opset(self.node) < 7:
                add.attributes["broadcast"] = ir.AttrInt64("broadcast", 1)
            self.node.append(add)
            return add.outputs[0]

        return change


def _parameters(context: GraphContext, node: ir.Node) -> tuple[np.ndarray, np.ndarray | None]:
    """Weight as it is, and bias, if there is one, in float64."""
    bias = context.array(node.inputs[2]) if len(node.inputs) > 2 else None
    return context.array(node.inputs[1]), None if bias is None else bias.astype(np.float64)


def bias(context: GraphContext, conv: ir.Node) -> np.ndarray:
    """The bias of a Conv in float64; zeros where it has none."""
    weight, found = _parameters(context, conv)
    return np.zeros(len(weight)) if found is None else found


def _overflow(node: ir.Node) -> str:
    return f"the weights of {node.op_type} '{node_name(node)}' would overflow or are not finite"
