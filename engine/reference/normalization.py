"""Normalisations where onnx.reference is wrong, rounds to float32 inside, or has no implementation of its own."""

from __future__ import annotations

import numpy as np
from onnx.reference.op_run import OpRun


class BatchNormalization(OpRun):
    """Y = (X - mean) * scale / sqrt(var + epsilon) + bias per channel (axis 1), for every opset.

    Statistics come from the batch where the specification says so: opset 14 on, `training_mode`; opset 7 to 13, more
    than one output; before, `is_test` = 0. (onnx.reference mixes batch statistics into opset 9 to 13 whenever
    `momentum` is set.) With `spatial` = 0 (before opset 9) every cell has its own statistics.
    """

    def _run(
        self,
        x,
        scale,
        bias,
        mean,
        var,
        epsilon=None,
        momentum=None,
        training_mode=None,
        is_test=None,
        spatial=None,
        consumed_inputs=None,
    ):
        opset = self.run_params["opsets"][""]
        spatial = opset >= 9 or spatial is None or bool(spatial)
        axes = (0, *range(2, x.ndim)) if spatial else (0,)
        per_channel = (1, -1, *(1,) * (x.ndim - 2))[-x.ndim :] if spatial else (1, *x.shape[1:])
        training = bool(training_mode) if opset >= 14 else len(self.onnx_node.output) > 1 if opset >= 7 else not is_test
        running = mean, var
        if training:
            mean, var = x.mean(axis=axes, dtype=np.float64), x.var(axis=axes, dtype=np.float64)
        factor = scale.reshape(per_channel) / np.sqrt(var.reshape(per_channel) + epsilon)
        y = ((x - mean.reshape(per_channel)) * factor + bias.reshape(per_channel)).astype(x.dtype)
        if not training:
            return (y,)
        blended = tuple(
            (old * momentum + new.reshape(old.shape) * (1 - momentum)).astype(old.dtype) for old, new in zip(running, (mean, var))
        )
        saved = (mean.astype(x.dtype), var.astype(x.dtype))
        return (y, *blended) if opset >= 14 else (y, *blended, *saved)


class LRN(OpRun):
    """Local response normalisation: X / (bias + alpha/size * sum of squares of `size` channels around)^beta."""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        before = (size - 1) // 2
        squares = np.pad(x * x, [(0, 0), (before, size - 1 - before)] + [(0, 0)] * (x.ndim - 2))
        total = sum(squares[:, shift : shift + x.shape[1]] for shift in range(size))
        return ((x / (bias + total * (alpha / size)) ** beta).astype(x.dtype),)


class LpNormalization(OpRun):
    """X / (sum of |X|^p along `axis`)^(1/p); 0 where that sum is 0. (onnx.reference adds up X where p = 1.)"""

    def _run(self, x, axis=None, p=None):
        norm = (np.abs(x) ** p).sum(axis=axis, keepdims=True) ** (1 / p)
        return (np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)).astype(x.dtype),)


class GroupNormalization(OpRun):
    """X[N, C, ...] normalised per sample and group of channels; scale and bias per group, from opset 21 per channel."""

    def _run(self, x, scale, bias, epsilon=None, num_groups=None, stash_type=None):
        y = _standardise(x.reshape(x.shape[0], num_groups, -1), (2,), epsilon).reshape(x.shape)
        if self.run_params["opsets"][""] < 21:
            scale, bias = (np.repeat(value, x.shape[1] // num_groups) for value in (scale, bias))
        per_channel = (-1, *(1,) * (x.ndim - 2))
        return ((y * scale.reshape(per_channel) + bias.reshape(per_channel)).astype(x.dtype),)


class MeanVarianceNormalization(OpRun):
    """(X - mean) / (standard deviation + 1e-9) over `axes`."""

    def _run(self, x, axes=None, across_channels=None, normalize_variance=None):
        if axes is None:
            axes = [0, 2, 3]
        deviation = x - x.mean(axis=tuple(axes), keepdims=True)
        return ((deviation / (np.sqrt((deviation**2).mean(axis=tuple(axes), keepdims=True)) + 1e-9)).astype(x.dtype),)


def _standardise(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + epsilon)
