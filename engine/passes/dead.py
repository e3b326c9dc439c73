"""Dead channels: where γ = 0 (or a filter is zero) a channel is a constant, which goes into the bias of the next layer.

    Conv (channel 3 is b) ─ ReLU ─ Conv W, c        Conv (without 3) ─ ReLU ─ Conv W without 3, c + W[:, 3]·relu(b)
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from . import linear
from .context import GraphContext, attribute, is_op
from .operands import adds_border, bounds
from .rounding import rounded


def apply(context: GraphContext) -> bool:
    """Remove the constant channels between two convolutions, through ReLU, pooling and depthwise convolutions."""
    modified = False
    for node in context.nodes():
        if is_op(node, "Conv") and attribute(node, "group", 1) == 1 and linear.refusal(context, node) is None \
                and is_op(context.sole_user(node.outputs[0]), "Conv", *_KEEPERS):  # else the weights need not be looked at
            modified |= _remove(context, node)
    return modified


@dataclass(eq=False)
class _Section:
    """What lies between the layer that makes the channels and the one that sums over them."""

    constants: np.ndarray  # what the dead channels are at this point
    values: list[ir.Value] = field(default_factory=list)
    depthwise: list[ir.Node] = field(default_factory=list)


def _remove(context: GraphContext, first: ir.Node) -> bool:
    weight = context.array(first.inputs[1])
    rows = weight.reshape(len(weight), -1)
    dead = ~rows[:, :1].any(axis=1)  # most filters are told by one number
    dead[dead] = ~rows[dead].any(axis=1)
    if not dead.any() or dead.all():
        return False
    section = _Section(linear.bias(context, first)[dead])
    last = _follow(context, first.outputs[0], dead, section)
    if last is None:
        return False
    weight = context.array(last.inputs[1])
    extra = weight[:, dead].reshape(len(weight), dead.sum(), -1).sum(axis=2, dtype=np.float64) @ section.constants
    bias = rounded(linear.bias(context, last) + extra, weight.dtype)
    if bias is None:
        return False
    context.set_constant(last, 1, np.ascontiguousarray(weight[:, ~dead]), f"{last.inputs[1].name}_live")
    context.set_constant(last, 2, bias, f"{last.inputs[1].name}_bias")
    for node in (first, *section.depthwise):
        for index, value in enumerate(node.inputs):
            if index > 0 and value is not None:
                context.set_constant(node, index, context.array(value)[~dead], f"{value.name}_live")
        if node is not first:
            node.attributes["group"] = ir.AttrInt64("group", int((~dead).sum()))
    for value in section.values:
        context.rename(value)
        if value.shape is not None:
            value.shape = ir.Shape([value.shape[0], int((~dead).sum()), *value.shape[2:]])
    return True


def _follow(context: GraphContext, value: ir.Value, dead: np.ndarray, section: _Section) -> ir.Node | None:
    """The convolution that sums over the channels, if only operators that keep them apart lie before it."""
    while np.isfinite(section.constants).all():
        section.values.append(value)
        node = context.sole_user(value)
        if node is None or node.inputs[0] is not value:
            return None
        if is_op(node, "Conv"):
            if linear.refusal(context, node) is not None or (adds_border(node) and section.constants.any()):
                return None
            group = attribute(node, "group", 1)
            if group == 1:
                return node
            weight = context.array(node.inputs[1])
            if group != len(dead) or weight.shape[:2] != (group, 1):
                return None
            taps = weight[dead].reshape(dead.sum(), -1).sum(axis=1, dtype=np.float64)
            section.constants = section.constants * taps + linear.bias(context, node)[dead]
            section.depthwise.append(node)
        elif node.domain == "" and node.op_type in _KEEPERS and len(node.outputs) == 1:
            change = _KEEPERS[node.op_type](context, node)
            if change is None:
                return None
            section.constants = change(section.constants)
        else:
            return None
        value = node.outputs[0]
    return None


def _clip(context: GraphContext, node: ir.Node) -> Callable[[np.ndarray], np.ndarray] | None:
    found = bounds(context, node)
    return None if found is None else lambda array: np.clip(array, *found)


def _same(context: GraphContext, node: ir.Node) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array


_KEEPERS: dict[str, Callable[[GraphContext, ir.Node], Callable[[np.ndarray], np.ndarray] | None]] = {
    "Relu": lambda context, node: lambda array: np.maximum(array, 0),
    "LeakyRelu": lambda context, node: lambda array: np.where(array < 0, attribute(node, "alpha", 0.01) * array, array),
    "Clip": _clip,
    "MaxPool": _same,
    "GlobalAveragePool": _same,
    "GlobalMaxPool": _same,
}
