"""MaxPool, AveragePool, LpPool, GlobalLpPool, GlobalMaxPool in the precision of their input, one vector operation per tap."""

from __future__ import annotations

import math

import numpy as np
from onnx.reference.op_run import OpRun

from infold.reference.windows import windows


class MaxPool(OpRun):
    """Maximum over windows; padding never wins. The second output holds each maximum's index into the whole tensor."""

    def _run(
        self, x, auto_pad=None, ceil_mode=None, dilations=None, kernel_shape=None, pads=None, storage_order=None, strides=None
    ):
        win = windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
        lowest = -np.inf if x.dtype.kind not in "iub" else np.iinfo(x.dtype).min
        padded = win.pad(x, lowest)
        y = win.at(padded, (0,) * len(win.kernel)).copy()
        if len(self.onnx_node.output) == 1:
            for tap in win.taps_over_input():
                np.maximum(y, win.at(padded, tap), out=y)
            return (y,)
        order = "F" if storage_order else "C"
        plane = np.arange(math.prod(win.input)).reshape(win.input, order=order)
        start = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *(1,) * len(win.input)) * math.prod(win.input)
        places = win.pad(start + plane, -1)
        y[...], index = lowest, np.full(y.shape, -1)
        for tap in win.taps_over_input():
            cells, place = win.at(padded, tap), win.at(places, tap)
            better = (place >= 0) & ((cells > y) | (index < 0))
            y, index = np.where(better, cells, y), np.where(better, place, index)
        return y, index


class AveragePool(OpRun):
    """Mean over windows; `count_include_pad` says whether padding counts as zeros."""

    def _run(
        self, x, auto_pad=None, ceil_mode=None, count_include_pad=None, dilations=None, kernel_shape=None, pads=None, strides=None
    ):
        win = windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
        counts = win.counts(bool(count_include_pad))
        return ((_sum(win, x) / np.maximum(counts, 1)).astype(x.dtype),)


class LpPool(OpRun):
    """(sum of |x|^p)^(1/p) over windows."""

    def _run(self, x, auto_pad=None, ceil_mode=None, dilations=None, kernel_shape=None, p=None, pads=None, strides=None):
        p = 2 if p is None else float(p)
        win = windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
        return ((_sum(win, np.abs(x) ** p) ** (1 / p)).astype(x.dtype),)


class GlobalMaxPool(OpRun):
    """Maximum over all spatial dimensions; `onnx.reference` takes two of them, and with one of them the channels."""

    def _run(self, x):
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class GlobalLpPool(OpRun):
    """(sum of |x|^p)^(1/p) over all spatial dimensions."""

    def _run(self, x, p=None):
        p = 2 if p is None else float(p)
        return (((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)).astype(x.dtype),)


def _sum(win, x: np.ndarray) -> np.ndarray:
    padded = win.pad(x, 0)
    return sum((win.at(padded, tap) for tap in win.taps_over_input()), np.zeros((*x.shape[:2], *win.output), x.dtype))
