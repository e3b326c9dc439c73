"""What a Conv node asks for, whichever algorithm answers."""
from __future__ import annotations

from itertools import product as cartesian
from math import prod
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ..plan.tensor import Tensor
from .base import NotNative, attr
from .window import Window, pixels, window


class Convolution(NamedTuple):
    """A Conv node over known shapes: x (N, C, spatial...), w (M, C/groups, kernel...), one to three spatial dimensions.

    weight: w if it is constant. bias: M numbers or None. border: zeros that must surround x, (before, after) per dimension.
    """

    node: ir.Node
    window: Window
    groups: int
    channels: int
    columns: int  # output channels
    weight: np.ndarray | None
    bias: np.ndarray | None
    border: tuple[tuple[int, int], ...]
    out_shape: tuple[int, ...]

    @property
    def x(self) -> str:
        return self.node.inputs[0].name

    @property
    def w(self) -> str:
        return self.node.inputs[1].name

    @property
    def multiply_adds(self) -> int:
        return prod(self.out_shape) * prod(self.window.kernel) * (self.channels // self.groups)

    def pixels(self) -> tuple[int, ...]:
        """Extents of the output's pixels: batch, then space."""
        return self.out_shape[0], *self.out_shape[2:]

    def steps(self, x: Tensor) -> tuple[int, ...]:
        """Elements of x from one output pixel's window to the next, by dimension of `pixels`."""
        return x.strides[0], *(s * t for s, t in zip(self.window.stride, x.strides[2:]))

    def taps(self, x: Tensor) -> list[int]:
        """Offsets of the window's elements from an output pixel's place in x, row-major over the kernel."""
        win = self.window
        index = cartesian(*(range(k) for k in win.kernel))
        return [sum((i[d] * win.dilation[d] - win.pads[d][0]) * x.strides[2 + d] for d in range(len(i))) for i in index]


def conv_shape(node, inputs) -> list[tuple[int, ...]] | None:
    """The output's shape; None, for onnx to judge, where anything is unusual."""
    x, w = inputs[0].shape, inputs[1].shape
    if not len(x) == len(w) >= 3 or x[1] != w[1] * attr(node, "group", 1) or 0 in (*x, *w):
        return None
    try:
        win = window(node, x[2:], w[2:])
    except NotNative:
        return None
    space = pixels(win, x[2:])
    return [(x[0], w[0], *space)] if space is not None and "kernel_shape" in node.attributes else None


def window_of(ctx, node) -> Window:
    return ctx.once(_window_of, node)


def _window_of(ctx, node) -> Window:
    shape, w_shape = ctx.shape(node.inputs[0].name), ctx.shape(node.inputs[1].name)
    if len(shape) != len(w_shape) or not 3 <= len(shape) <= 5:
        raise NotNative(f"rank {len(shape)}")
    return window(node, shape[2:], w_shape[2:])


def conv_border(ctx, node, index) -> tuple[tuple[int, int], ...]:
    """Padding before; after, only as far as the last window reaches."""
    return ctx.once(_border, node) if index == 0 else ()


def _border(ctx, node) -> tuple[tuple[int, int], ...]:
    try:
        win = window_of(ctx, node)
    except NotNative:
        return ()
    size, out = ctx.shape(node.inputs[0].name)[2:], ctx.shape(node.outputs[0].name)[2:]
    border = []
    for d, (before, _) in enumerate(win.pads):
        after = (out[d] - 1) * win.stride[d] + win.reach(d) - size[d] - before
        if before < 0 or min(out) < 1:
            return ()
        border.append((before, max(0, after)))
    return tuple(border)


def convolution(ctx, node) -> Convolution:
    """Raises NotNative for what no algorithm here can do."""
    win = window_of(ctx, node)
    if min((0, *(p for pair in win.pads for p in pair))) < 0:
        raise NotNative("negative padding")
    inputs = node.inputs
    x_shape, w_shape, out_shape = (ctx.shape(v.name) for v in (*inputs[:2], node.outputs[0]))
    groups, channels, columns = attr(node, "group", 1), x_shape[1], w_shape[0]
    bias_value = inputs[2] if len(inputs) > 2 and inputs[2] is not None and inputs[2].name else None
    bias = ctx.constant_value(bias_value)
    if bias_value is not None and bias is None:
        raise NotNative("a bias that is computed at run time")
    if channels % groups or columns % groups or w_shape[1] != channels // groups:
        raise NotNative(f"{channels} channels, {columns} filters and {groups} groups do not fit")
    if 0 in (*out_shape, *x_shape):
        raise NotNative("an empty tensor")
    return Convolution(node, win, groups, channels, columns, ctx.constant_value(inputs[1]), bias, conv_border(ctx, node, 0),
                       out_shape)
