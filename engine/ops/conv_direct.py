"""Convolution as an implicit matrix product: output pixels x (taps, channels) x filters."""
from __future__ import annotations

from math import prod

import numpy as np

from .. import _native
from ..plan.choice import Way
from ..plan.lowering import Deferred
from ..plan.tensor import BF16, F32, Tensor
from .convolution import Convolution
from .epilogue import Epilogue, epilogue, take
from .product import Packed, pack_constant, pack_step, product, vector
from .splits import SPLITS, ProductSize, cycles

FEW = 16  # channels of a picture
MAX_STAGED_K = 2304  # channels that the driver's stage holds (conv.c)


def direct(ctx, c: Convolution) -> Way:
    return product_way(ctx, c, "direct")


def product_way(ctx, c: Convolution, name: str) -> Way:
    """name: one of SPLITS; but for "direct" the weights must be constant."""
    beside = _beside(ctx, c)
    c = c if beside == 1 else c._replace(groups=c.groups // beside)
    return Way(name, cycles(ctx, name, product_size(c)), lambda: _emit(ctx, c, name), half=name == "bf16")


def _beside(ctx, c: Convolution) -> int:
    """How many groups of few filters to compute as one, with zeros between them: as many as fill a vector, so that it takes no more
    vector operations. (An infinity or NaN so reaches the groups beside its own.)"""
    each = c.columns // c.groups
    most = 1 if c.weight is None else max(ctx.lanes // each, 1)
    return max(n for n in range(1, min(most, c.groups) + 1) if c.groups % n == 0)


def _joined(c: Convolution) -> int:
    """How many of the node's groups are one of `c`."""
    return 1 if c.weight is None else c.channels // c.groups // c.weight.shape[1]


def _block_diagonal(c: Convolution) -> np.ndarray:
    """The weights (M, C/g, spatial...), with zeros where several of the node's groups are one of `c`."""
    count = _joined(c)
    if count == 1:
        return c.weight
    parts = c.weight.reshape(c.groups, count, -1, *c.weight.shape[1:])
    weight = np.zeros((*parts.shape[:3], count, *parts.shape[3:]), parts.dtype)
    for i in range(count):
        weight[:, i, :, i] = parts[:, i]
    return weight.reshape(c.columns, -1, *c.window.kernel)


def product_size(c: Convolution) -> ProductSize:
    return ProductSize(prod(c.pixels()), prod(c.window.kernel) * (c.channels // c.groups), c.columns // c.groups, c.groups)


def _emit(ctx, c: Convolution, name: str) -> None:
    found = epilogue(ctx, c.node, residual=True, per_channel=True)
    take(ctx, found)
    before, half = ctx.deferred.get(c.x), name == "bf16"
    if before is not None:
        x = before.source if half else ctx.wide(before.source)
    elif half and _is_picture(ctx, c):
        x = ctx.rounded(c.x, (*c.border[:-1], (c.border[-1][0], c.border[-1][1] + 1)))
    else:
        x = ctx.image(c.x, c.border, half)
    residual = ctx.image(found.residual, half=half) if found.residual is not None else None
    emit_direct(ctx, c, found, x, ctx.output(found.output, image=True, half=half), residual, before, name)


def emit_direct(ctx, c: Convolution, found: Epilogue, x: Tensor, out: Tensor, residual: Tensor | None = None,
                before: Deferred | None = None, name: str = "direct") -> None:
    """The step, computed the way `name` of SPLITS, for as many pixels as `out` has; the window of its first pixel lies, before
    padding, at the start of x."""
    kernel, columns, k = c.window.kernel, c.columns // c.groups, c.channels // c.groups
    taps, bias, spare = c.taps(x), vector(ctx, c.bias, columns, c.groups), False
    if c.groups == 1 and c.window.dilation[-1] == 1 and x.strides[-1] == c.channels and kernel[-1] > 1:
        # neighbouring pixels are neighbours in memory: a row of taps is one longer tap
        taps, k = taps[::kernel[-1]], k * kernel[-1]
        spare = x.dtype == BF16 and k % 2 == 1 and bool(x.border) and x.border[-1][1] > c.border[-1][1]
        k += spare  # the kernel reads pairs: a weight of zero meets the number behind the window
    packed = _pack(ctx, c, SPLITS[name].terms, k if spare else None)
    # the axis along which windows overlap inside that along which they do not: their planes would be fetched once for each tap
    order = [0, 2, 1, 3] if len(kernel) == 3 and kernel[0] > 1 == kernel[1] else range(1 + len(kernel))

    def ordered(values) -> list[int]:
        return [values[d] for d in order]

    product(ctx, x, packed, bias, out, taps, pixels=ordered((out.shape[0], *out.shape[2:])), x_stride=ordered(c.steps(x)),
            out_stride=ordered(out.steps()), k=k, groups=c.groups, in_group=c.channels // c.groups, out_group=columns,
            bias_group=columns, epilogue=found, residual=residual,
            res_stride=ordered(residual.steps()) if residual is not None else None, before=before, sparse=_joined(c))


def _is_picture(ctx, c: Convolution) -> bool:
    """Whether a float32 image has few channels, windows that overlap, and a kernel that takes its rows from anywhere: it is then
    better rounded as a whole."""
    overlap = c.window.kernel[-1] > c.window.stride[-1] and c.window.dilation[-1] == 1
    return overlap and c.groups == 1 and c.channels < FEW and ctx.tensor(c.x, half=True).dtype == F32 \
        and _native.isa_info(ctx.isa)["bf16_depth"] == 2


def _pack(ctx, c: Convolution, terms: int, row: int | None = None) -> Packed:
    """(M, C/g, spatial...) -> [group][tap][channel] x [column]; row: numbers for each row of taps, zeros at its end."""
    per_group, columns, area = c.channels // c.groups, c.columns // c.groups, prod(c.window.kernel)
    k, k_stride = (area, per_group), (1, area)
    shape = (columns, per_group * area, c.groups, columns * per_group * area)
    if c.weight is None:
        return pack_step(ctx, ctx.rows(c.w), k, k_stride, *shape)
    weight, key = _block_diagonal(c), ctx.key(c.w)
    if row is not None:
        rows = np.moveaxis(weight, 1, -1).reshape(columns, area // c.window.kernel[-1], -1)
        rows = np.pad(rows, ((0, 0), (0, 0), (0, row - rows.shape[2])))
        return pack_constant(ctx, (*key, "rows"), rows, rows.shape[1:], (row, 1), columns, rows[0].size, terms=terms)
    return pack_constant(ctx, key if weight is c.weight else (*key, "block diagonal"), weight, k, k_stride, *shape, terms)
