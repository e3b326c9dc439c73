"""Pad with a constant: fill, then copy the input into the middle. (Zero padding before a Conv has already become its attribute.)"""
from __future__ import annotations

from ..plan.tensor import prefers_image
from .base import NotNative, attr, counted, op


def _opset_1_shape(node, inputs):
    pads = attr(node, "paddings")
    if pads is not None and len(pads) != 2 * len(inputs[0].shape):
        raise ValueError(f"{len(pads)} paddings")
    return None if pads is None else [[n + a + b for n, a, b in zip(inputs[0].shape, pads, pads[len(pads) // 2:])]]


@op("Pad", infer=_opset_1_shape)
def pad(ctx, node) -> None:
    if attr(node, "mode", "constant") != "constant":
        raise NotNative("padding by reflection or repetition")
    source, output = ctx.tensor(node.inputs[0].name), node.outputs[0].name
    rank, value = len(source.shape), attr(node, "value", 0.0)
    if ctx.opset(node) < 11:
        pads = attr(node, "pads", attr(node, "paddings"))
    else:
        given = [int(p) for p in ctx.need(node.inputs[1])]
        constant = ctx.need(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None and node.inputs[2].name else None
        value = 0.0 if constant is None else float(constant.reshape(-1)[0])
        some_axes = len(node.inputs) > 3 and node.inputs[3] is not None and node.inputs[3].name
        axes = ctx.need(node.inputs[3]) if some_axes else range(rank)
        pads = [0] * 2 * rank
        for i, axis in enumerate(axes):
            axis = counted(axis, rank)
            pads[axis], pads[axis + rank] = given[i], given[i + len(given) // 2]
    out = ctx.output(output, image=prefers_image(source) or ctx.placement.read_as_image(output))
    ctx.fill(out, value)
    # a negative pad cuts: the copied block starts where both exist
    begin = [max(0, -p) for p in pads[:rank]]
    extent = [n + min(0, a) + min(0, b) for n, a, b in zip(source.shape, pads[:rank], pads[rank:])]
    if min(extent, default=1) <= 0:
        return
    ctx.copy(source.view(extent, source.strides, sum(i * s for i, s in zip(begin, source.strides))),
             out.view(extent, out.strides, sum(max(0, p) * s for p, s in zip(pads[:rank], out.strides))))
