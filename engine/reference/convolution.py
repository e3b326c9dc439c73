"""Conv and ConvTranspose in the precision of their input, by matrix products (onnx.reference loops over pixels)."""

from __future__ import annotations

import math

import numpy as np
from onnx.reference.op_run import OpRun

from infold.reference.windows import Windows, windows

_COLUMNS_BYTES = 64 << 20  # how much of the im2col matrix exists at a time


class Conv(OpRun):
    """Y[N, M, *out] = X[N, C, *in] convolved with W[M, C/group, *kernel], + B[M]. 1-D, 2-D, 3-D and beyond."""

    def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None, strides=None):
        group = group or 1
        if x.ndim != w.ndim or x.shape[1] != w.shape[1] * group or w.shape[0] % group:
            raise ValueError(f"input {x.shape} and weights {w.shape} do not fit with group {group}")
        if kernel_shape is not None and tuple(kernel_shape) != w.shape[2:]:
            raise ValueError(f"kernel_shape {tuple(kernel_shape)} contradicts the weights' {w.shape}")
        win = windows(x, w.shape[2:], strides, dilations, pads, auto_pad)
        padded, weights = _computable(win.pad(x, 0)), _computable(w)
        y = _depthwise(padded, weights, win) if w.shape[1] == 1 else _im2col(padded, weights, group, win)
        if b is not None:
            y += b.reshape(-1, *(1,) * (x.ndim - 2))
        return (y.astype(x.dtype, copy=False),)


def _computable(x: np.ndarray) -> np.ndarray:
    """Return 16-bit floats as float32: products of matrices have no 16-bit form that is fast or accumulates well."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def _depthwise(x: np.ndarray, w: np.ndarray, win: Windows) -> np.ndarray:
    """One input channel per group: a sum of scaled, shifted images."""
    multiplier = w.shape[0] // x.shape[1]
    y = np.zeros((x.shape[0], w.shape[0], *win.output), x.dtype)
    ones = (1,) * len(win.output)
    for tap in win.taps():
        cells = win.at(x, tap)
        if multiplier > 1:
            cells = np.repeat(cells, multiplier, axis=1)
        y += cells * w[(slice(None), 0, *tap)].reshape(-1, *ones)
    return y


def _im2col(x: np.ndarray, w: np.ndarray, group: int, win: Windows) -> np.ndarray:
    """Matrix products W[g, M/g, C/g * taps] @ columns[N, g, C/g * taps, pixels], some output rows at a time."""
    batch, channels, rank = x.shape[0], x.shape[1], len(win.output)  # the batch may be 0, so no dimension is left to NumPy
    taps = math.prod(win.kernel)
    matrix = w.reshape(group, w.shape[0] // group, -1)
    y = np.empty((batch, w.shape[0], *win.output), x.dtype)
    row_bytes = batch * channels * taps * math.prod(win.output[1:]) * x.itemsize
    rows = max(1, _COLUMNS_BYTES // max(row_bytes, 1))
    for first in range(0, win.output[0], rows):
        count = min(rows, win.output[0] - first)
        shape = (count, *win.output[1:])
        if taps == 1:
            columns = win.at(x, (0,) * rank)[:, :, first : first + count]
        else:
            columns = np.empty((batch, channels, taps, *shape), x.dtype)
            for index, tap in enumerate(win.taps()):
                columns[:, :, index] = win.at(x, tap)[:, :, first : first + count]
        product = matrix @ columns.reshape(batch, group, channels // group * taps, math.prod(shape))
        y[:, :, first : first + count] = product.reshape(batch, w.shape[0], *shape)
    return y


class ConvTranspose(OpRun):
    """The gradient of Conv with respect to its input: X[N, C, *in], W[C, M/group, *kernel] -> Y[N, M, *out]."""

    def _run(
        self,
        x,
        w,
        b=None,
        auto_pad=None,
        dilations=None,
        group=None,
        kernel_shape=None,
        output_padding=None,
        output_shape=None,
        pads=None,
        strides=None,
    ):
        group, rank = group or 1, x.ndim - 2
        ones = (1,) * rank
        if w.ndim != x.ndim or w.shape[0] != x.shape[1] or x.shape[1] % group:
            raise ValueError(f"input {x.shape} and weights {w.shape} do not fit with group {group}")
        strides, dilations, extra = strides or ones, dilations or ones, output_padding or (0,) * rank
        kernel, outputs = w.shape[2:], w.shape[1] * group
        full = [(n - 1) * s + (k - 1) * d + 1 + e for n, k, s, d, e in zip(x.shape[2:], kernel, strides, dilations, extra)]
        begin, shape = _crop(full, x.shape[2:], strides, auto_pad, output_shape, pads)

        matrix = np.moveaxis(_computable(w).reshape(group, w.shape[0] // group, -1), 1, 2)  # [g, M/g * taps, C/g]
        pixels = _computable(x).reshape(x.shape[0], group, x.shape[1] // group, math.prod(x.shape[2:]))
        columns = matrix @ pixels  # [N, g, M/g * taps, pixels]
        columns = columns.reshape(x.shape[0], outputs, math.prod(kernel), *x.shape[2:])
        room = [max(size, first + length) for size, first, length in zip(full, begin, shape)]
        y = np.zeros((x.shape[0], outputs, *room), columns.dtype)
        win = Windows(tuple(kernel), tuple(strides), tuple(dilations), (0,) * rank, (0,) * rank, tuple(room), x.shape[2:])
        for index, tap in enumerate(win.taps()):
            cells = win.at(y, tap)
            cells += columns[:, :, index]
        y = y[(..., *(slice(first, first + length) for first, length in zip(begin, shape)))]
        return ((y if b is None else y + b.reshape(-1, *ones)).astype(x.dtype, copy=False),)


def _crop(full, inputs, strides, auto_pad, output_shape, pads) -> tuple[list[int], list[int]]:
    """Return where the output begins inside the full scatter area, and its shape."""
    rank = len(full)
    auto_pad = auto_pad or "NOTSET"
    if output_shape is not None or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        same = [min(n * s, size) for n, s, size in zip(inputs, strides, full)]  # no larger than with no padding at all
        shape = same if output_shape is None else list(output_shape)[-rank:]
        total = [max(size - wanted, 0) for size, wanted in zip(full, shape)]
        return [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total], shape
    pads = [0] * 2 * rank if pads is None or auto_pad == "VALID" else pads
    shape = [size - pads[axis] - pads[axis + rank] for axis, size in enumerate(full)]
    if min(shape) < 1 or min(pads) < 0:
        raise ValueError(f"padding {pads} leaves no output of {full}")
    return list(pads[:rank]), shape
