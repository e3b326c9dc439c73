"""A BatchNormalization with running statistics as what it computes: one scale and shift per channel."""
from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from ..passes import training
from .activations import Activation
from .base import NotNative, attr


class ChannelMap(NamedTuple):
    """min(high, max(low, x * scale + shift)), scale and shift float32 by channel (dimension 1)."""

    scale: np.ndarray = np.ones(1, np.float32)
    shift: np.ndarray = np.zeros(1, np.float32)
    low: float = -np.inf
    high: float = np.inf

    def clamped(self, low: float, high: float) -> ChannelMap:
        return self._replace(low=low, high=high)


NO_MAP = ChannelMap()


def clamp(activation: Activation) -> tuple[float, float] | None:
    """The bounds of an activation that is nothing but these."""
    return {"IDENTITY": (-np.inf, np.inf), "RELU": (0.0, np.inf), "CLIP": (activation.a, activation.b)}.get(activation.act)


def is_training(ctx, node) -> bool:
    """Whether the statistics come from the batch."""
    return training.is_training(node, ctx.opset(node))


def is_spatial(ctx, node) -> bool:
    """Whether the pixels of a channel share its statistics; else (`spatial` = 0, before opset 9) each cell of an image has its
    own."""
    return ctx.opset(node) >= 9 or bool(attr(node, "spatial", 1))


def scale_and_shift(ctx, node) -> tuple[np.ndarray, np.ndarray] | None:
    """What running statistics come to, float32 by channel or cell; None where they are not known before the run."""
    arrays = [ctx.constant_value(v) for v in node.inputs[1:5]]
    if any(a is None for a in arrays):
        return None
    gamma, beta, mean, var = (a.astype(np.float64).reshape(-1) for a in arrays)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(var + attr(node, "epsilon", 1e-5))
        return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def require_sizes(ctx, node) -> None:
    """Raise ValueError unless every parameter has a number for each channel, or cell."""
    shape = ctx.shape(node.inputs[0].name)
    expected = prod(shape[1:2] if is_spatial(ctx, node) else shape[1:])
    sizes = [prod(ctx.shape(value.name)) for value in node.inputs[1:5]]
    if any(size != expected for size in sizes):
        raise ValueError(f"statistics of {sizes} channels")


def channel_map(ctx, node) -> ChannelMap:
    """What a BatchNormalization node computes of every channel; raises NotNative where that is not known before the run."""
    tables = None if is_training(ctx, node) or not is_spatial(ctx, node) else scale_and_shift(ctx, node)
    if tables is None:
        raise NotNative("statistics of the batch, by cell or computed at run time")
    require_sizes(ctx, node)
    return ChannelMap(*tables)
