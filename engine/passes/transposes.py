"""Transposes between a framework's images, channels last, and ONNX's convolutions go behind what computes element by element, and
cancel.

    Conv -> Transpose -> Clip -> Pad -> Transpose -> Conv        Keras, TensorFlow
    Conv -> Clip -> Pad -> Conv

The planner takes activations, residuals and padding into the convolution only where it reads them without a Transpose between.
"""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .context import GraphContext, attribute, is_op

_UNARY = {"": ("Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu", "Selu", "Sigmoid", "Softplus",
               "Swish", "Tanh"),
          "infold": ("Gelu", "GeluTanh", "HardSigmoid", "HardSwish", "Mish", "Silu")}
_BROADCAST = ("Add", "Sub", "Mul", "Div")


def apply(context: GraphContext) -> bool:
    """Move every Transpose that puts the channels of an image last one node on, where it can go; remove pairs that cancel."""
    modified = False
    for node in context.nodes():
        if node.graph is context.graph and (_cancels(context, node) or _sinks(context, node)):
            modified = True
    return modified


def _cancels(context: GraphContext, node: ir.Node) -> bool:
    """Let the readers of a Transpose that undoes another read what that one reads."""
    if not is_op(node, "Transpose") or not is_op(first := node.inputs[0].producer(), "Transpose") \
            or node.outputs[0].is_graph_output() or not node.outputs[0].uses():
        return False
    perms = attribute(first, "perm"), attribute(node, "perm")
    if None in perms or [perms[0][i] for i in perms[1]] != list(range(len(perms[1]))):
        return False
    node.outputs[0].replace_all_uses_with(first.inputs[0])
    context.remove(node)
    _release(context, first)
    return True


def _release(context: GraphContext, transpose: ir.Node) -> None:
    """Remove it if nothing reads it any more."""
    if not transpose.outputs[0].uses() and not transpose.outputs[0].is_graph_output():
        context.remove(transpose)


def _last(value: ir.Value | None) -> list[int] | None:
    """The perm of the Transpose that makes the value, if it puts the channels of an image last."""
    node = None if value is None else value.producer()
    perm = attribute(node, "perm") if is_op(node, "Transpose") else None
    return perm if perm is not None and len(perm) >= 4 and list(perm) == [0, *range(2, len(perm)), 1] else None


def _sinks(context: GraphContext, node: ir.Node) -> bool:
    if node.op_type in _UNARY.get(node.domain, ()) or is_op(node, "Pad"):
        data = node.inputs[:1]
    elif is_op(node, "Concat", *_BROADCAST):
        data = node.inputs
    else:
        return False
    perm = next((perm for value in data if (perm := _last(value)) is not None), None)
    before = [] if perm is None else [_before(context, value, perm) for value in data]
    if not before or any(value is None for value in before):
        return False
    if is_op(node, "Concat"):
        if any(_last(value) is None for value in data):
            return False
        node.attributes["axis"] = ir.AttrInt64("axis", perm[attribute(node, "axis") % len(perm)])
    elif is_op(node, "Pad"):
        pads = context.array(node.inputs[1]) if len(node.inputs) in (2, 3) else None
        if pads is None or pads.size != 2 * len(perm):
            return False
        moved = pads.reshape(2, -1)[:, np.argsort(perm)].ravel()
        node.replace_input_with(1, context.constant(moved, f"{node.inputs[1].name}_moved"))
    for index, (old, value) in enumerate(zip(data, before)):
        if isinstance(value, np.ndarray):
            value = context.constant(value, f"{old.name}_moved")
        node.replace_input_with(index, value)
        if _last(old) is not None:
            _release(context, old.producer())
    _transposed(context, node, perm)
    return True


def _before(context: GraphContext, value: ir.Value | None, perm: list[int]) -> ir.Value | np.ndarray | None:
    """The operand as it is in front of such a Transpose; None if that takes another."""
    if _last(value) == perm:
        return value.producer().inputs[0]
    array = context.array(value)
    if array is None or array.ndim > len(perm) or sum(size > 1 for size in array.shape) > 1:
        return None
    return array.reshape((1,) * (len(perm) - array.ndim) + array.shape).transpose(np.argsort(perm)) if array.size > 1 else value


def _transposed(context: GraphContext, node: ir.Node, perm: list[int]) -> None:
    """Put the Transpose behind the node."""
    result = node.outputs[0]
    turn = ir.node("Transpose", [result], {"perm": list(perm)})
    context.put_behind(node, turn, "channels_first")
    result.type, after = turn.outputs[0].type, turn.outputs[0].shape
    result.shape = None if after is None else ir.Shape([after[i] for i in np.argsort(perm)])
