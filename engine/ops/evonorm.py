"""Normalisations that ONNX has no operator for: functions of the domain infold, recognised in exported graphs.

EvoNorm: Liu, Brock, Simonyan, Le, "Evolving Normalization-Activation Layers" (2020), as timm computes it.
"""
from __future__ import annotations

from math import prod

import numpy as np

from ..plan.tensor import Tensor
from .activations import Activation
from .base import NotNative, attr, counted, op, same_shape
from .elementwise import emit_affine
from .norm import activation, by_channel, grouped, images, normalize, per_channel, require, rows


@op("EvoNormS0", domain="infold", infer=same_shape)
def evonorm_s0(ctx, node) -> None:
    """(x, v, gamma, beta; groups, epsilon): x * sigmoid(v x) / sqrt(group's variance + epsilon) * gamma + beta. v missing: 1."""
    grouped(ctx, node, attr(node, "groups"), _tables(ctx, node, 1.0), epsilon=attr(node, "epsilon", 1e-5))


@op("EvoNormB0", domain="infold", infer=same_shape)
def evonorm_b0(ctx, node) -> None:
    """(x, v, gamma, beta, running_var; epsilon): x / max(sqrt(variance + epsilon), v x + s) * gamma + beta, s the deviation of the
    channel in its image, sqrt(its variance + epsilon). Without running_var the variance is the batch's. v missing: 0."""
    shape, epsilon = ctx.shape(node.inputs[0].name), attr(node, "epsilon", 1e-3)
    pixels = range(2, len(shape))
    require(shape, pixels)
    require(shape, {0, *pixels})
    tables = _tables(ctx, node, 0.0)
    if len(node.inputs) > 4 and node.inputs[4] is not None and node.inputs[4].name:
        variance = ctx.constant_value(node.inputs[4])
        if variance is None:
            raise NotNative("a running variance that is computed at run time")
        bound = np.sqrt(variance.astype(np.float64) + epsilon).astype(np.float32)
        floor = ctx.constant(("floor", node.inputs[4].name, epsilon), lambda: bound)
        found = activation(ctx, node)
        x, out = images(ctx, node.inputs[0].name, found.output)
    else:
        found = activation(ctx, node)
        x, out = images(ctx, node.inputs[0].name, found.output)
        floor = ctx.temporary(shape[1:2])
        normalize(ctx, x, None, {0, *pixels}, given={"spread": by_channel(floor, shape)})
        emit_affine(ctx, floor, ctx.scalar(1.0), ctx.scalar(epsilon), floor, Activation("SQRT"))
    tables = {key: by_channel(t, shape) for key, t in (tables | {"floor": floor}).items()}
    normalize(ctx, x, out, pixels, found, tables, epsilon=epsilon)


@op("LayerNormStd", domain="infold", infer=same_shape)
def layer_norm_std(ctx, node) -> None:
    """(x, gamma, beta; axis, epsilon): (x - mean) / (s + epsilon) * gamma + beta over the dimensions from `axis` on, s the unbiased
    standard deviation (divisor n - 1)."""
    shape = ctx.shape(node.inputs[0].name)
    count = prod(shape[counted(attr(node, "axis", -1), len(shape)):])
    if count < 2:
        raise NotNative("the unbiased deviation of one element")
    rows(ctx, node, node.inputs[1:3], divisor=count - 1, offset=attr(node, "epsilon", 1e-5))


def _tables(ctx, node, v: float) -> dict[str, Tensor]:
    """v, gamma and beta by channel; only v is never left out."""
    tables = {key: per_channel(ctx, node, index) for index, key in ((1, "v"), (2, "gamma"), (3, "beta"))
              if len(node.inputs) > index and node.inputs[index] is not None and node.inputs[index].name}
    channels = ctx.shape(node.inputs[0].name)[1]
    return {"v": ctx.constant(("channels of", v, channels), lambda: np.full(channels, v, np.float32))} | tables
