"""A BatchNormalization with running statistics as what it computes: one scale and shift per channel."""
from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .activations import Activation
from .base import NotNative, attr


@dataclass(frozen=True)
class ChannelMap:
    """min(high, max(low, x * scale + shift)), scale and shift float32 by channel (dimension 1)."""

    scale: np.ndarray = field(default_factory=lambda: np.ones(1, np.float32))
    shift: np.ndarray = field(default_factory=lambda: np.zeros(1, np.float32))
    low: float = -np.inf
    high: float = np.inf

    def clamped(self, low: float, high: float) -> ChannelMap:
        return replace(self, low=low, high=high)


def clamp(activation: Activation) -> tuple[float, float] | None:
    """The bounds of an activation that is nothing but these."""
    return {"IDENTITY": (-np.inf, np.inf), "RELU": (0.0, np.inf), "CLIP": (activation.a, activation.b)}.get(activation.act)


def is_training(ctx, node) -> bool:
    """Whether the statistics come from the batch: `training_mode` (opset 14), more outputs (7-13), `is_test` (before 7)."""
    opset = ctx.opset(node)
    if opset >= 14:
        return bool(attr(node, "training_mode", 0))
    if opset < 7 and not attr(node, "is_test", 0):
        return True
    return len([o for o in node.outputs if o.name]) > 1


def channel_map(ctx, node) -> ChannelMap:
    """What a BatchNormalization node computes; raises NotNative where that is not known before the run."""
    if is_training(ctx, node) or not attr(node, "spatial", 1):
        raise NotNative("statistics of the batch or per pixel")
    arrays = [ctx.constant_value(v) for v in node.inputs[1:5]]
    if any(a is None for a in arrays):
        raise NotNative("statistics that are computed at run time")
    if any(a.size != ctx.shape(node.inputs[0].name)[1] for a in arrays):
        raise ValueError(f"statistics of {[a.size for a in arrays]} channels")
    gamma, beta, mean, var = (a.astype(np.float64) for a in arrays)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(var + attr(node, "epsilon", 1e-5))
        return ChannelMap(scale.astype(np.float32), (beta - mean * scale).astype(np.float32))
