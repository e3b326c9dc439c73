"""Convolution as a sum over taps of the window: each is computed by itself, for the output pixels where it lies inside the image,
and added to what the output holds.

Where a window reaches far beyond a small image (DeepLab's convolutions, dilated by 12 and 24, on 28 x 28 pixels), most products of
the other algorithms are with padding. Here each tap is a matrix product; `conv_winograd.py` has the same sum over a dimension more.
"""
from __future__ import annotations

from collections.abc import Callable
from itertools import product as cartesian
from math import prod
from typing import NamedTuple

from ..plan.choice import Way
from ..plan.tensor import F32, Tensor
from .convolution import Convolution
from .epilogue import Epilogue, epilogue, take
from .product import Packed, pack_constant, product, vector
from .splits import ProductSize, cycles

ENDS = 16  # what it takes to read and store the sums of a product, in rows of the reduction


class Tap(NamedTuple):
    """A place in the window, and the output pixels where it lies inside the image, both by dimension."""

    index: tuple[int, ...]
    place: tuple[range, ...]

    @property
    def pixels(self) -> int:
        return prod(map(len, self.place))

    def source(self, c: Convolution, x: Tensor) -> Tensor:
        """What it reads of the input: the pixels under it (dimensions behind the tap's: all)."""
        win, shape, strides, at = c.window, [*x.shape], [*x.strides], 0
        for d, (i, place) in enumerate(zip(self.index, self.place)):
            at += (place.start * win.stride[d] + i * win.dilation[d] - win.pads[d][0]) * x.strides[2 + d]
            shape[2 + d], strides[2 + d] = len(place), x.strides[2 + d] * win.stride[d]
        return x.view(shape, strides, at)

    def target(self, out: Tensor) -> Tensor:
        """What it adds to."""
        place = (*self.place, *map(range, out.shape[2 + len(self.place):]))
        return out.view((*out.shape[:2], *map(len, place)), out.strides, sum(r.start * s for r, s in zip(place, out.strides[2:])))


def taps_of(c: Convolution, size: tuple[int, ...], axes: int) -> list[Tap]:
    """The taps along the first `axes` spatial dimensions that meet the image, of this spatial size; last one that lies inside it
    for all pixels. None at all, if there is no such tap."""
    win, by_axis = c.window, []
    for d in range(axes):
        at = [i * win.dilation[d] - win.pads[d][0] for i in range(win.kernel[d])]
        by_axis.append([(i, range(max(-(a // win.stride[d]), 0), min((size[d] - 1 - a) // win.stride[d] + 1, c.out_shape[2 + d])))
                        for i, a in enumerate(at)])
    met = [Tap(*(tuple(zip(*part)) or ((), ()))) for part in cartesian(*by_axis) if all(place for _, place in part)]
    met.sort(key=lambda tap: tap.pixels)
    return met if met and met[-1].pixels == prod(c.out_shape[2:2 + axes]) else []


def add_up(ctx, c: Convolution, met: list[Tap], emit: Callable[[Tap, Tensor, Tensor, Tensor | None, Epilogue], None],
           half: bool = False) -> None:
    """Lower the node as a sum over `met`: for each tap emit(tap, x, out, residual, what follows), images of all pixels; the last
    one has bias and epilogue. half: whether a single one reads and writes images of bf16 numbers."""
    found = epilogue(ctx, c.node, residual=True, per_channel=True)
    take(ctx, found)
    half = half and len(met) == 1
    x, residual = ctx.image(c.x, half=half), ctx.image(found.residual, half=half) if found.residual is not None else None
    out = ctx.output(found.output, image=True, half=half and (residual is None or residual.dtype != F32))
    if residual is not None and residual.dtype != out.dtype:
        residual = ctx.image(found.residual)
    if len(met) > 1:
        if residual is None:
            ctx.fill(out, 0.0)
        else:
            ctx.copy(residual, out)
        residual = out
    for tap in met[:-1]:
        emit(tap, x, out, residual, Epilogue(found.output))
    emit(met[-1], x, out, residual, found)


def taps(ctx, c: Convolution) -> Way | None:
    if c.weight is None or c.groups != 1 or max(c.window.dilation) == 1:
        return None
    met = taps_of(c, ctx.shape(c.x)[2:], len(c.window.kernel))
    if not met:
        return None
    sizes = [ProductSize(c.out_shape[0] * tap.pixels, c.channels + ENDS, c.columns) for tap in met]
    return Way("taps", sum(cycles(ctx, "direct", size) for size in sizes), lambda: _emit(ctx, c, met), padded=False)


def _emit(ctx, c: Convolution, met: list[Tap]) -> None:
    area = prod(c.window.kernel)
    packed = pack_constant(ctx, ctx.key(c.w), c.weight, (c.channels,), (area,), c.columns, c.channels * area, area, 1)

    def emit(tap: Tap, x: Tensor, out: Tensor, residual: Tensor | None, found: Epilogue) -> None:
        number = 0
        for i, n in zip(tap.index, c.window.kernel):
            number = number * n + i
        matrix = Packed(packed.tensor.view((packed.stride,), (1,), number * packed.stride), c.columns, packed.stride)
        source, target = tap.source(c, x), tap.target(out)
        added = tap.target(residual) if residual is not None else None
        product(ctx, source, matrix, vector(ctx, c.bias if tap is met[-1] else None, c.columns), target, [0],
                pixels=(target.shape[0], *target.shape[2:]), x_stride=source.steps(), out_stride=target.steps(), k=c.channels,
                epilogue=found, residual=added, res_stride=None if added is None else added.steps())

    add_up(ctx, c, met, emit)
