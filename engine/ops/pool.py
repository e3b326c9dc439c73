"""MaxPool and AveragePool, 1-D to 3-D, NHWC."""
from __future__ import annotations

from math import prod

from ..plan.tensor import BF16
from .base import NotNative, attr, op
from .product import pad4
from .window import pixels, window

MAX_TAPS = 4096  # the driver's table of window offsets


def _three(values, fill: int) -> list[int]:
    return [fill] * (3 - len(values)) + list(values)


def _pooled_shape(node, inputs) -> list[tuple[int, ...]] | None:
    x, kernel = inputs[0].shape, attr(node, "kernel_shape", [])
    if len(x) != len(kernel) + 2 or not kernel or 0 in x or attr(node, "ceil_mode", 0) or len(node.outputs) > 1:
        return None
    try:
        space = pixels(window(node, x[2:], kernel), x[2:])
    except NotNative:
        return None
    return None if space is None else [(*x[:2], *space)]


@op("MaxPool", "AveragePool", infer=_pooled_shape, half=lambda ctx, node, name: ctx.placement.half(node.outputs[0].name))
def pool(ctx, node) -> None:
    if len([o for o in node.outputs if o.name]) > 1:
        raise NotNative("the indices of the maxima")
    name = node.inputs[0].name
    shape = ctx.shape(name)
    if not 3 <= len(shape) <= 5 or 0 in shape:
        raise NotNative(f"an input of shape {shape}")
    win = window(node, shape[2:], attr(node, "kernel_shape"))
    if prod(win.kernel) > MAX_TAPS:
        raise NotNative(f"a window of more than {MAX_TAPS} pixels")
    if min(p for pair in win.pads for p in pair) < 0:
        raise NotNative("negative padding")
    average = node.op_type == "AveragePool"
    x = ctx.image(name, half=True)
    out = ctx.output(node.outputs[0].name, image=True, half=x.dtype == BF16)
    x = x if x.dtype == out.dtype else ctx.wide(x)
    ctx.emit("pool", {"in": x, "out": out},
             n=pad4((out.shape[0], *out.shape[2:]), 1), in_stride=pad4((x.strides[0], *x.strides[2:]), 0),
             out_stride=pad4((out.strides[0], *out.strides[2:]), 0), in_size=_three(shape[2:], 1), kernel=_three(win.kernel, 1),
             stride=_three(win.stride, 1), pad=_three([p for p, _ in win.pads], 0), pad_end=_three([p for _, p in win.pads], 0),
             dilation=_three(win.dilation, 1), channels=shape[1], average=average,
             include_pad=average and attr(node, "count_include_pad", 0), half=x.dtype == BF16)
