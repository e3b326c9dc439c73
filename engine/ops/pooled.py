"""Rarer pooling, as compositions: LpPool is a convolution of powers, the index of a maximum an ArgMax over shifted images."""
from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import onnx_ir as ir

from .base import NotNative, attr
from .composed import Body, composed
from .window import Window, window

MOST_TAPS = 64  # shifted images


def _windows(b: Body) -> tuple[Window, list[int], list[tuple[int, int]]]:
    """The window, how many there are along each dimension, and the padding that these need."""
    shape = b.facts[0].shape
    win, counts, pads = window(b.node, shape[2:], attr(b.node, "kernel_shape")), [], []
    for d, n in enumerate(shape[2:]):
        span, ceil = n + sum(win.pads[d]) - win.reach(d), attr(b.node, "ceil_mode", 0)
        count = (-(-span // win.stride[d]) if ceil else span // win.stride[d]) + 1
        count -= ceil and (count - 1) * win.stride[d] >= n + win.pads[d][0]  # begins beyond the image
        counts.append(count)
        pads.append((win.pads[d][0], max(0, (count - 1) * win.stride[d] + win.reach(d) - n - win.pads[d][0])))
    if b.facts[0].dtype != np.float32 or min(counts) < 1 or min(p for pair in pads for p in pair) < 0:
        raise NotNative(f"windows over {b.facts[0].dtype} {list(shape)} with pads {list(win.pads)}")
    return win, counts, pads


def _powers(b: Body) -> tuple[ir.Value, float]:
    p, x = attr(b.node, "p", 2), b("Abs", b.inputs[0])
    return (x if p == 1 else b("Mul", x, x) if p == 2 else b("Pow", x, b.constant(np.float32(p)))), p


def _root(b: Body, x: ir.Value, p: float) -> ir.Value:
    return b("Identity", x) if p == 1 else b("Sqrt", x) if p == 2 else b("Pow", x, b.constant(np.float32(1 / p)))


@composed("LpPool")
def lp_pool(b: Body) -> ir.Value:
    (win, _, pads), channels = _windows(b), b.facts[0].shape[1]
    x, p = _powers(b)
    ones = b.constant(np.ones((channels, 1, *win.kernel), np.float32))
    sums = b("Conv", x, ones, group=channels, kernel_shape=win.kernel, strides=win.stride, dilations=win.dilation,
             pads=[p for side in zip(*pads) for p in side])
    return _root(b, sums, p)


@composed("GlobalLpPool")
def global_lp_pool(b: Body) -> ir.Value:
    x, p = _powers(b)
    return _root(b, b("ReduceSum", x, b.ints(*range(2, len(b.facts[0].shape))), keepdims=1), p)


@composed("MaxPool")
def max_pool_with_indices(b: Body) -> list[ir.Value]:
    """Among the images that each tap of the window sees, the number of the first that has the maximum, then where that tap lies.

    Of small integers without the places: as float32, which holds them all.
    """
    if b.facts[0].dtype.itemsize == 1 and not any(v.name for v in b.node.outputs[1:]):
        image = b("MaxPool", b.cast(b.inputs[0], np.float32), **{name: attr(b.node, name) for name in b.node.attributes})
        return [b.cast(image, b.facts[0].dtype)]
    (win, counts, pads), (batch, channels, *size) = _windows(b), b.facts[0].shape
    if prod(win.kernel) > MOST_TAPS:
        raise NotNative(f"the places in a window of more than {MOST_TAPS} pixels")
    axes, taps = range(2, 2 + len(size)), list(product(*map(range, win.kernel)))
    before, after = zip(*pads)
    padded = b("Pad", b.inputs[0], b.ints(0, 0, *before, 0, 0, *after), b.constant(np.float32(-np.inf)))
    images = []
    for tap in taps:
        first = [i * d for i, d in zip(tap, win.dilation)]
        last = [f + (count - 1) * s + 1 for f, count, s in zip(first, counts, win.stride)]
        seen = b("Slice", padded, b.ints(*first), b.ints(*last), b.ints(*axes), b.ints(*win.stride))
        images.append(b("Reshape", seen, b.ints(1, -1)))
    stack = b("Concat", *images, axis=0)
    steps = [prod(size[:d]) if attr(b.node, "storage_order", 0) else prod(size[d + 1:]) for d in range(len(size))]
    inside = b.constant(np.array([sum(i * d * s for i, d, s in zip(tap, win.dilation, steps)) for tap in taps]))
    planes = np.arange(batch * channels).reshape(batch, channels, *[1] * len(size)) * prod(size)
    corners = sum(((np.arange(n) * t - p) * s).reshape([-1 if k == d else 1 for k in range(len(size))])
                  for d, (n, t, p, s) in enumerate(zip(counts, win.stride, before, steps)))
    whole = b.ints(batch, channels, *counts)
    index = b("Reshape", b("Gather", inside, b("ArgMax", stack, axis=0, keepdims=0), axis=0), whole)
    return [b("Reshape", b("ReduceMax", stack, axes=[0], keepdims=0), whole), b("Add", index, b.constant(corners + planes))]


@composed("MaxUnpool")
def max_unpool(b: Body) -> ir.Value:
    (batch, channels, *size), kernel = b.facts[0].shape, attr(b.node, "kernel_shape")
    win = window(b.node, size, kernel)
    shape = [batch, channels, *((n - 1) * s + k - sum(p) for n, s, k, p in zip(size, win.stride, kernel, win.pads))]
    if b.given(2) and b.facts[2].value.tolist() != shape:
        raise NotNative("an output of another shape")
    zeros = b("Expand", b.constant(np.zeros(1, b.facts[0].dtype)), b.ints(prod(shape)))
    flat = (b("Reshape", b.inputs[i], b.ints(-1)) for i in (1, 0))
    return b("Reshape", b("ScatterElements", zeros, *flat, axis=0), b.ints(*shape))
