"""Convolution as an implicit matrix product: output pixels x (taps, channels) x filters."""
from __future__ import annotations

from math import prod

from ..plan.choice import Way
from ..plan.lowering import Deferred
from ..plan.tensor import Tensor
from .convolution import Convolution
from .epilogue import Epilogue, epilogue, take
from .product import Packed, pack_constant, pack_step, product, vector
from .splits import SPLITS, ProductSize, cycles

MAX_STAGED_K = 2304  # channels that the driver's stage holds (conv.c)


def direct(ctx, c: Convolution) -> Way:
    return product_way(ctx, c, "direct")


def product_way(ctx, c: Convolution, name: str) -> Way:
    """name: one of SPLITS; but for "direct" the weights must be constant."""
    return Way(name, cycles(ctx, name, product_size(c)), lambda: _emit(ctx, c, name), half=name == "bf16")


def product_size(c: Convolution) -> ProductSize:
    return ProductSize(prod(c.pixels()), prod(c.window.kernel) * (c.channels // c.groups), c.columns // c.groups, c.groups)


def _emit(ctx, c: Convolution, name: str) -> None:
    found = epilogue(ctx, c.node, residual=True, per_channel=True)
    take(ctx, found)
    before, half = ctx.deferred.get(c.x), name == "bf16"
    x = before.source if before is not None else ctx.image(c.x, c.border, half)
    x = x if half else ctx.wide(x)
    residual = ctx.image(found.residual, half=half) if found.residual is not None else None
    emit_direct(ctx, c, found, x, ctx.output(found.output, image=True, half=half), residual, before, name)


def emit_direct(ctx, c: Convolution, found: Epilogue, x: Tensor, out: Tensor, residual: Tensor | None = None,
                before: Deferred | None = None, name: str = "direct") -> None:
    """The step, computed the way `name` of SPLITS, for as many pixels as `out` has; the window of its first pixel lies, before
    padding, at the start of x."""
    kernel, columns, k = c.window.kernel, c.columns // c.groups, c.channels // c.groups
    taps, bias = c.taps(x), vector(ctx, c.bias, columns, c.groups)
    if c.groups == 1 and c.window.dilation[-1] == 1 and x.strides[-1] == c.channels and kernel[-1] > 1:
        # neighbouring pixels are neighbours in memory: a row of taps is one longer tap
        taps, k = taps[::kernel[-1]], k * kernel[-1]
    packed = _pack(ctx, c, SPLITS[name].terms)
    product(ctx, x, packed, bias, out, taps, pixels=(out.shape[0], *out.shape[2:]), x_stride=c.steps(x),
            out_stride=(out.strides[0], *out.strides[2:]), k=k, groups=c.groups, in_group=c.channels // c.groups, out_group=columns,
            bias_group=columns, epilogue=found,
            residual=residual, res_stride=(residual.strides[0], *residual.strides[2:]) if residual is not None else None,
            before=before)


def _pack(ctx, c: Convolution, terms: int) -> Packed:
    """(M, C/g, spatial...) -> [group][tap][channel] x [column]."""
    per_group, columns, area = c.channels // c.groups, c.columns // c.groups, prod(c.window.kernel)
    k, k_stride = (area, per_group), (1, area)
    shape = (columns, per_group * area, c.groups, columns * per_group * area)
    if c.weight is not None:
        return pack_constant(ctx, ctx.key(c.w), c.weight, k, k_stride, *shape, terms)
    return pack_step(ctx, ctx.rows(c.w), k, k_stride, *shape)
