"""Convolution as one product for each tap of the window, over the output pixels where that tap lies inside the image.

Where a window reaches far beyond a small image (DeepLab's convolutions, dilated by 12 and 24, on 28 x 28 pixels), most products of
the other algorithms are with padding.
"""
from __future__ import annotations

from itertools import product as cartesian
from math import prod

from ..plan.choice import Way
from ..plan.tensor import Tensor
from .convolution import Convolution
from .epilogue import Epilogue, epilogue, take
from .product import Packed, pack_constant, product, vector
from .splits import ProductSize, cycles

ENDS = 16  # what it takes to read and store the sums of a product, in rows of the reduction


def taps(ctx, c: Convolution) -> Way | None:
    if c.weight is None or c.groups != 1 or max(c.window.dilation) == 1:
        return None
    met = _met(c, ctx.shape(c.x)[2:])
    if not met or prod(map(len, met[-1][1])) < prod(c.out_shape[2:]):
        return None
    sizes = [ProductSize(c.out_shape[0] * prod(map(len, place)), c.channels + ENDS, c.columns) for _, place in met]
    return Way("taps", sum(cycles(ctx, "direct", size) for size in sizes), lambda: _emit(ctx, c, met), padded=False)


def _met(c: Convolution, size: tuple[int, ...]) -> list[tuple[int, tuple[range, ...]]]:
    """The taps that meet the image anywhere, by number, and the output pixels where they do; those of the most pixels last."""
    by_axis = []
    for n, out, kernel, stride, step, (before, _) in zip(size, c.out_shape[2:], c.window.kernel, c.window.stride, c.window.dilation,
                                                         c.window.pads):
        offsets = [k * step - before for k in range(kernel)]
        by_axis.append([range(max(-(at // stride), 0), min((n - 1 - at) // stride + 1, out)) for at in offsets])
    met = [(tap, place) for tap, place in enumerate(cartesian(*by_axis)) if all(place)]
    return sorted(met, key=lambda part: prod(map(len, part[1])))


def _emit(ctx, c: Convolution, met: list[tuple[int, tuple[range, ...]]]) -> None:
    """All products add to what the output holds; the last one's pixels are all there are: it takes bias and activation."""
    found = epilogue(ctx, c.node, residual=True, per_channel=True)
    take(ctx, found)
    x, out = ctx.image(c.x), ctx.output(found.output, image=True)
    if found.residual is not None:
        ctx.copy(ctx.tensor(found.residual), out)
    else:
        ctx.fill(out, 0.0)
    area, starts = prod(c.window.kernel), c.taps(x)
    packed = pack_constant(ctx, ctx.key(c.w), c.weight, (c.channels,), (area,), c.columns, c.channels * area, area, 1)
    for tap, place in met:
        last = tap == met[-1][0]
        matrix = Packed(packed.tensor.view((packed.stride,), (1,), tap * packed.stride), c.columns, packed.stride)
        part = _part(out, out.strides, place)
        steps = out.strides[0], *out.strides[2:]
        product(ctx, _part(x, (0, 0, *c.steps(x)[1:]), place), matrix, vector(ctx, c.bias if last else None, c.columns), part,
                starts[tap:tap + 1], pixels=(part.shape[0], *part.shape[2:]), x_stride=c.steps(x), out_stride=steps, k=c.channels,
                epilogue=found if last else Epilogue(found.output), residual=part, res_stride=steps)


def _part(t: Tensor, strides: tuple[int, ...], place: tuple[range, ...]) -> Tensor:
    """The image from the place's first pixel on, at so many elements from pixel to pixel."""
    shape = (*t.shape[:2], *map(len, place))
    return t.view(shape, t.strides, sum(r.start * s for r, s in zip(place, strides[2:])))
