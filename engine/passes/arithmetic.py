"""BatchNormalizations, and arithmetic with constants, as maps that broadcast to the tensor they read."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from . import affine
from .affine import Affine, Channels
from .context import GraphContext, is_op
from .movement import Grid


class Arithmetic(NamedTuple):
    """A node that maps its input number `source`: the map, or the reason why a BatchNormalization is none."""

    source: int
    step: Affine | str


def read(context: GraphContext, node: ir.Node) -> Arithmetic | None:
    """The node as a map whose arrays have the rank of its input; None for any other operator."""
    if is_op(node, "BatchNormalization"):
        return Arithmetic(0, _batchnorm(context, node, node.inputs[0]))
    if not is_op(node, "Add", "Sub", "Mul", "Div", "Neg"):
        return None
    varying = [index for index, value in enumerate(node.inputs) if context.tensor(value) is None]
    if len(varying) != 1:
        return None
    source = node.inputs[varying[0]]
    step = affine.elementwise(context, node, source, Grid(source.shape))
    point = (1,) * len(source.shape or ())
    return None if step is None else Arithmetic(varying[0], Affine(np.ones(point), np.zeros(point)).then(step))


def _batchnorm(context: GraphContext, node: ir.Node, source: ir.Value) -> Affine | str:
    scale = context.array(node.inputs[1])
    if scale is None:
        return f"its scale '{node.inputs[1].name}' {affine.not_constant(node.inputs[1])}"
    if source.shape is None or len(source.shape) < 2:
        return "the rank of its input is unknown"
    rank = len(source.shape)
    step = affine.batchnorm(context, node, Channels(scale.size, from_end=rank - 1, rank=rank, least_rank=rank))
    return step if isinstance(step, str) else step.each(lambda array: array.reshape(1, -1, *(1,) * (rank - 2)))
