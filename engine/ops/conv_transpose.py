"""ConvTranspose as ordinary convolutions: output pixels of equal remainder modulo the stride see the same taps, so each remainder
("phase") is one convolution that stores every stride-th pixel."""
from __future__ import annotations

from itertools import product as cartesian
from math import prod

import numpy as np

from .base import NotNative, attr, op
from .epilogue import epilogue, take
from .product import pack_constant, product, vector
from .window import window

MAX_PHASES = 4096


def _geometry(ctx, node):
    """(window, pads before, output spatial size)."""
    shape, w_shape = ctx.shape(node.inputs[0].name), ctx.shape(node.inputs[1].name)
    if len(shape) != len(w_shape) or not 3 <= len(shape) <= 5:
        raise NotNative(f"rank {len(shape)}")
    win = window(node, shape[2:], w_shape[2:])
    if prod(win.stride) > MAX_PHASES:
        raise NotNative(f"strides of {win.stride}")
    out = ctx.shape(node.outputs[0].name)[2:]
    before = [p for p, _ in win.pads]
    auto = attr(node, "auto_pad", "NOTSET")
    if "output_shape" in node.attributes or auto.startswith("SAME"):  # the padding follows from the output's size
        extra = attr(node, "output_padding", [0] * len(out))
        for d, n in enumerate(out):
            total = max(0, win.stride[d] * (shape[2 + d] - 1) + extra[d] + win.reach(d) - n)
            before[d] = total - total // 2 if auto == "SAME_LOWER" else total // 2
            if auto == "NOTSET" or auto == "VALID":
                before[d] = total - total // 2
    return win, before, out


def _phases(win, before, out):
    """Per dimension a list of (first output index, output count, [(kernel index, input offset)])."""
    dims = []
    for d, n in enumerate(out):
        phases = []
        for r in range(min(win.stride[d], n)):
            taps = [(k, (r + before[d] - k * win.dilation[d]) // win.stride[d]) for k in range(win.kernel[d])
                    if (r + before[d] - k * win.dilation[d]) % win.stride[d] == 0]
            phases.append((r, -(-(n - r) // win.stride[d]), taps))
        dims.append(phases)
    return dims


def transpose_border(ctx, node, index):
    if index != 0:
        return ()
    try:
        win, before, out = _geometry(ctx, node)
    except NotNative:
        return ()
    size, border = ctx.shape(node.inputs[0].name)[2:], []
    for d, phases in enumerate(_phases(win, before, out)):
        offsets = [(o, o + count - 1) for _, count, taps in phases for _, o in taps]
        border.append((max([0, *(-low for low, _ in offsets)]), max([0, *(high - size[d] + 1 for _, high in offsets)])))
    return tuple(border)


@op("ConvTranspose", border=transpose_border)
def conv_transpose(ctx, node) -> None:
    win, before, size = _geometry(ctx, node)
    weight = ctx.constant_value(node.inputs[1])
    bias_value = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] is not None and node.inputs[2].name else None
    bias_array = ctx.constant_value(bias_value)
    if weight is None or (bias_value is not None and bias_array is None):
        raise NotNative("weights that are computed at run time")
    groups, (channels, columns, *kernel) = attr(node, "group", 1), weight.shape
    x_shape = ctx.shape(node.inputs[0].name)
    if channels % groups or x_shape[1] != channels or 0 in x_shape or 0 in size:
        raise NotNative(f"{x_shape[1]} channels, filters {weight.shape} and {groups} groups do not fit")
    # a phase's pixels lie apart: with few channels a sweep would take a few floats at a time
    found = epilogue(ctx, node, residual=True, per_channel=True, sweep=columns >= ctx.lanes or prod(win.stride) == 1)
    take(ctx, found)
    x = ctx.image(node.inputs[0].name, transpose_border(ctx, node, 0))
    out = ctx.output(found.output, image=True)
    residual = ctx.image(found.residual) if found.residual is not None else None
    area, k = prod(kernel), channels // groups
    bias = vector(ctx, bias_array, columns, groups)
    for phase in cartesian(*_phases(win, before, size)):
        taps = list(cartesian(*(p[2] for p in phase)))
        at = np.ravel_multi_index(np.array([[i for i, _ in tap] for tap in taps]).T, kernel) if taps else np.zeros(0, int)
        # (C, M/g, area) -> [group][tap, channel] x [column]
        block = weight.reshape(groups, k, columns, area)[..., at].transpose(0, 3, 1, 2)
        packed = pack_constant(ctx, (*ctx.key(node.inputs[1].name), "taps", *at), block, (len(taps) * k,), (columns,), columns, 1,
                               groups, len(taps) * k * columns)
        offsets = [sum(o * s for (_, o), s in zip(tap, x.strides[2:])) for tap in taps] or [0]
        strides = (out.strides[0], *(s * t for s, t in zip(win.stride, out.strides[2:])))
        first = sum(p[0] * s for p, s in zip(phase, out.strides[2:]))
        shape = (out.shape[0], out.shape[1], *(p[1] for p in phase))

        def every(t, shape=shape, phase=phase):
            return t.view(shape, t.strides, sum(p[0] * s for p, s in zip(phase, t.strides[2:])))

        product(ctx, x, packed, bias, out.view(shape, out.strides, first), offsets, pixels=(shape[0], *shape[2:]),
                x_stride=(x.strides[0], *x.strides[2:]), out_stride=strides, k=k if taps else 0, groups=groups, in_group=k,
                out_group=columns, bias_group=columns, epilogue=found,
                residual=every(residual) if residual is not None else None,
                res_stride=(residual.strides[0], *(s * t for s, t in zip(win.stride, residual.strides[2:])))
                if residual is not None else None)
