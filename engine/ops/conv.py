"""Conv, 1-D to 3-D: depthwise by its own kernel, everything else as an implicit matrix product."""
from __future__ import annotations

from itertools import product as cartesian
from math import prod

import numpy as np

from .. import _native
from ..plan.memory import round_up
from .base import NotNative, attr, op
from .epilogue import Epilogue, epilogue, take
from .product import Packed, pack_constant, pack_step, pad4, product, slope_of, vector
from .window import Window, window


MAX_STAGED_K = 2304  # channels that the driver's stage holds (conv.c)


def _window(ctx, node) -> Window:
    shape, w_shape = ctx.shape(node.inputs[0].name), ctx.shape(node.inputs[1].name)
    if len(shape) != len(w_shape) or not 3 <= len(shape) <= 5:
        raise NotNative(f"rank {len(shape)}")
    return window(node, shape[2:], w_shape[2:])


def conv_border(ctx, node, index):
    """Padding before; after, only as far as the last window reaches."""
    if index != 0:
        return ()
    try:
        win = _window(ctx, node)
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


def takes_prologue(ctx, node, name: str) -> bool:
    """Whether the node is a convolution that can apply a per-channel map to its input `name` while reading it: a 1x1 one without
    padding. (Under a larger kernel every pixel would be mapped once per tap, and zero padding must stay zero.)"""
    if node.op_type != "Conv" or node.domain or node.inputs[0].name != name or attr(node, "group", 1) != 1:
        return False
    if len(ctx.shape(name)) < 3 or ctx.constant_value(node.inputs[1]) is None or ctx.shape(name)[1] > MAX_STAGED_K:
        return False
    try:
        win = _window(ctx, node)
    except NotNative:
        return False
    return set(win.kernel) == {1} and not any(p for pair in win.pads for p in pair)


@op("Conv", border=conv_border)
def conv(ctx, node) -> None:
    win = _window(ctx, node)
    if min((0, *(p for pair in win.pads for p in pair))) < 0:
        raise NotNative("negative padding")
    x_name, w_name = node.inputs[0].name, node.inputs[1].name
    groups = attr(node, "group", 1)
    channels, out_channels = ctx.shape(x_name)[1], ctx.shape(w_name)[0]
    bias_value = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] is not None and node.inputs[2].name else None
    bias_array = ctx.constant_value(bias_value)
    if bias_value is not None and bias_array is None:
        raise NotNative("a bias that is computed at run time")
    if channels % groups or out_channels % groups or ctx.shape(w_name)[1] != channels // groups:
        raise NotNative(f"{channels} channels, {out_channels} filters and {groups} groups do not fit")
    weight = ctx.constant_value(node.inputs[1])
    depthwise = groups == channels == out_channels and groups > 1 and weight is not None
    if prod(ctx.shape(node.outputs[0].name)) == 0 or 0 in ctx.shape(x_name):
        raise NotNative("an empty tensor")
    found = epilogue(ctx, node)
    if depthwise and found.residual is not None:
        found = Epilogue(node.outputs[0].name)
    take(ctx, found)
    before = ctx.deferred.get(x_name)
    x = before.source if before is not None else ctx.image(x_name, conv_border(ctx, node, 0))
    out = ctx.output(found.output, image=True)
    start = [-before for before, _ in win.pads]
    index = list(cartesian(*(range(k) for k in win.kernel)))
    taps = [sum((start[d] + i[d] * win.dilation[d]) * x.strides[2 + d] for d in range(len(i))) for i in index]
    common = dict(pixels=(out.shape[0], *out.shape[2:]),
                  x_stride=(x.strides[0], *(s * t for s, t in zip(win.stride, x.strides[2:]))),
                  out_stride=(out.strides[0], *out.strides[2:]))
    if depthwise:
        _depthwise(ctx, x, weight, vector(ctx, bias_array, channels), out, taps, ctx.key(w_name), found, **common)
        return
    columns, k = out_channels // groups, channels // groups
    bias = vector(ctx, bias_array, columns, groups)
    merged = groups == 1 and win.dilation[-1] == 1 and x.strides[-1] == channels and win.kernel[-1] > 1
    if merged:  # neighbouring pixels are neighbours in memory: a row of taps is one longer tap
        taps, k = taps[::win.kernel[-1]], k * win.kernel[-1]
    packed = _pack(ctx, node, weight, groups, columns)
    residual = ctx.image(found.residual) if found.residual is not None else None
    product(ctx, x, packed, bias, out, taps, k=k, groups=groups, in_group=channels // groups, out_group=columns,
            bias_group=columns, epilogue=found, residual=residual,
            res_stride=(residual.strides[0], *residual.strides[2:]) if residual is not None else None,
            slope=slope_of(ctx, found, groups), before=before, **common)


def _pack(ctx, node, weight: np.ndarray | None, groups: int, columns: int) -> Packed:
    """(M, C/g, spatial...) -> [group][tap][channel] x [column]."""
    _, per_group, *kernel = ctx.shape(node.inputs[1].name)
    area = prod(kernel)
    k, k_stride = (area, per_group), (1, area)
    if weight is not None:
        return pack_constant(ctx, ctx.key(node.inputs[1].name), weight, k, k_stride, columns, per_group * area, groups,
                             columns * per_group * area)
    return pack_step(ctx, ctx.rows(node.inputs[1].name), k, k_stride, columns, per_group * area, groups, columns * per_group * area)


def _depthwise(ctx, x, weight, bias, out, taps, key, found, pixels, x_stride, out_stride) -> None:
    channels = weight.shape[0]
    width = round_up(channels, ctx.lanes)
    taps = tuple(taps)

    def make():
        table = np.zeros((len(taps), width), np.float32)
        table[:, :channels] = weight.reshape(channels, -1).T
        return table

    act = found.activation
    ctx.emit("depthwise",
             {"in": x, "w": ctx.constant((ctx.isa, "depthwise", *key), make, shared=True), "bias": bias, "out": out,
              "tap": ctx.constant(("taps", taps), lambda: np.array(taps, np.int64)), "slope": slope_of(ctx, found)},
             flops=2 * prod(pixels) * len(taps) * channels, n=pad4(pixels, 1), in_stride=pad4(x_stride, 0),
             out_stride=pad4(out_stride, 0), taps=len(taps), channels=channels, w_stride=width,
             act=_native.ACTS[act.act], a=act.a, b=act.b)
