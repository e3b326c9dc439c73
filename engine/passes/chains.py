"""A chain of per-channel arithmetic that no layer could take becomes one BatchNormalization: one pass over memory.

    x - mean -> / sqrt(var + eps) -> * gamma -> + beta          what tracing a BatchNorm written by hand gives
    BatchNormalization -> Mul -> Add                            Caffe's BatchNorm and Scale
"""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from . import affine
from .affine import Affine, Channels
from .context import GraphContext, is_op
from .rounding import rounded
from .shapes import dtype

_LEAST_OPSET = 9  # BatchNormalization without `spatial`
_MOST_CHANNELS = 1 << 20  # of a tensor whose declared shape is to be believed
_LEAST_LENGTH = 3  # without a BatchNormalization: Mul and Add may be the last part of another normalisation


def apply(context: GraphContext) -> bool:
    """Replace every chain of a BatchNormalization and more, or of three nodes, along axis 1."""
    modified = False
    for node in context.nodes():
        if node.graph is not None and context.opset(node) >= _LEAST_OPSET:
            modified |= _collapse(context, node)
    return modified


def _collapse(context: GraphContext, first: ir.Node) -> bool:
    source = next((value for value in first.inputs if value is not None and context.tensor(value) is None), None)
    shape = None if source is None else source.shape
    if shape is None or len(shape) < 2 or not isinstance(shape[1], int) or shape[1] > _MOST_CHANNELS or dtype(source) is None:
        return False
    second = context.sole_user(first.outputs[0]) if is_op(first, *affine.STEPS) else None
    if not is_op(second, *affine.STEPS):
        return False
    channels = Channels(shape[1], from_end=len(shape) - 1, rank=len(shape), least_rank=len(shape))
    nodes, total = _chain(context, first, source, channels)
    batchnorms = [node for node in nodes if is_op(node, "BatchNormalization")]
    if len(nodes) < (2 if batchnorms else _LEAST_LENGTH):
        return False
    if not batchnorms and np.ptp(total.scale) == 0 and np.ptp(total.shift) == 0:
        return False  # arithmetic with numbers: nothing says which axis is the channels
    kind = dtype(source).numpy()
    scale, shift = rounded(total.scale, kind), rounded(total.shift, kind)
    if scale is None or shift is None:
        return False
    result = nodes[-1].outputs[0]
    parameters = {"scale": scale, "shift": shift, "mean": np.zeros_like(scale), "variance": np.ones_like(scale)}
    replacement = ir.node("BatchNormalization", [source, *(context.constant(array, f"{result.name}_{name}")
                                                           for name, array in parameters.items())],
                          {"epsilon": 0.0}, name=(batchnorms or nodes)[-1].name)
    first.prepend(replacement)
    context.replaced(batchnorms, replacement, result.name)
    context.supersede(result, replacement.outputs[0])
    context.remove(*reversed(nodes))
    return True


def _chain(context: GraphContext, node: ir.Node | None, value: ir.Value,
           channels: Channels) -> tuple[list[ir.Node], Affine]:
    """The per-channel nodes from here on, each the only reader of the one before, and the map that they are."""
    nodes, total, graph = [], Affine.identity(channels.count), node.graph
    while node is not None and node.graph is graph:
        step = affine.step(context, node, value, channels)
        if not isinstance(step, Affine) or sum(each is value for each in node.inputs) > 1:
            break
        nodes.append(node)
        total, value = total.then(step), node.outputs[0]
        node = context.sole_user(value)
    return nodes, total
