"""What a convolution or matrix product can do before it stores: add a residual, apply an activation, then a map per channel."""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from .activations import NOTHING, Activation, activation_of
from .base import NotNative
from .channel_map import ChannelMap, channel_map, clamp


@dataclass(eq=False)
class Epilogue:
    """The nodes taken over, in order; the value that is finally stored; what to add and apply on the way."""

    output: str
    residual: str | None = None
    activation: Activation = NOTHING
    map: ChannelMap | None = None  # a BatchNormalization behind the activation
    nodes: list[ir.Node] = field(default_factory=list)


def epilogue(ctx, node: ir.Node, *, residual: bool = False, per_channel: bool = False, sweep: bool = True) -> Epilogue:
    """Follow the single readers of the node's output as far as an epilogue can go. Takes nothing yet.

    residual: whether a residual can be added; per_channel: whether PReLU and BatchNormalization can follow, which want a vector
    over the channels; sweep: whether more than a clamp is allowed, which a sweep over the stored tile computes.
    """
    found = Epilogue(node.outputs[0].name)
    while (reader := ctx.graph.only_reader(found.output)) is not None and reader not in ctx.done:
        if not _join(ctx, found, reader, residual, per_channel, sweep):
            break
        found.nodes.append(reader)
        found.output = reader.outputs[0].name
    return found


def _join(ctx, found: Epilogue, reader: ir.Node, residual: bool, per_channel: bool, sweep: bool) -> bool:
    """Make the reader the next part of the epilogue, if it can be that."""
    idle = found.activation.act == "IDENTITY"
    other = _residual(ctx, reader, found.output) if residual and idle and found.map is None else None
    if other is not None and found.residual is None:
        found.residual = other
        return True
    if not reader.inputs or reader.inputs[0] is None or reader.inputs[0].name != found.output:
        return False
    activation = activation_of(ctx, reader)
    if found.map is not None:
        bounds = None if activation is None or not np.isinf([found.map.low, found.map.high]).all() else clamp(activation)
        found.map = found.map if bounds is None else found.map.clamped(*bounds)
        return bounds is not None
    if activation is not None:
        if not idle or (not per_channel and activation.slope is not None) or (not sweep and clamp(activation) is None):
            return False
        found.activation = activation
        return True
    if not per_channel or not sweep or reader.domain or reader.op_type != "BatchNormalization":
        return False
    try:
        found.map = channel_map(ctx, reader)
    except (NotNative, ValueError):  # the node's own lowering says why
        return False
    return True


def _residual(ctx, reader: ir.Node, name: str) -> str | None:
    """The other operand of an Add (or two-operand Sum) of equal shapes, if it is already computed."""
    if reader.domain or reader.op_type not in ("Add", "Sum") or len(reader.inputs) != 2:
        return None
    names = [v.name for v in reader.inputs]
    other = names[1 - names.index(name)]
    if other == name or not ctx.computed(other) or ctx.facts[other].shape != ctx.shape(name):
        return None
    return other


def take(ctx, found: Epilogue) -> None:
    """Mark the nodes as done: call when the lowering can no longer refuse."""
    ctx.done.update(found.nodes)
    ctx.fused.update({node: [ctx.node] for node in found.nodes if node.op_type == "BatchNormalization" and not node.domain})
