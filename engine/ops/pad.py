"""Pad: the input copied into the middle, and around it a constant, or copies of what is there. (Zero padding before a Conv has
already become its attribute.)"""
from __future__ import annotations

from ..plan.tensor import ANY, F32, Tensor, prefers_image
from .base import NotNative, attr, counted, op


def _opset_1_shape(node, inputs):
    pads = attr(node, "paddings")
    if pads is not None and len(pads) != 2 * len(inputs[0].shape):
        raise ValueError(f"{len(pads)} paddings")
    return None if pads is None else [[n + a + b for n, a, b in zip(inputs[0].shape, pads, pads[len(pads) // 2:])]]


@op("Pad", infer=_opset_1_shape, types=ANY)
def pad(ctx, node) -> None:
    mode = attr(node, "mode", "constant")
    source, output = ctx.tensor(node.inputs[0].name), node.outputs[0].name
    rank, value = len(source.shape), attr(node, "value", 0.0)
    if ctx.opset(node) < 11:
        pads = attr(node, "pads", attr(node, "paddings"))
    else:
        given = [int(p) for p in ctx.need(node.inputs[1])]
        constant = ctx.need(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None and node.inputs[2].name else None
        value = 0.0 if constant is None else constant.reshape(-1)[0]
        some_axes = len(node.inputs) > 3 and node.inputs[3] is not None and node.inputs[3].name
        axes = ctx.need(node.inputs[3]) if some_axes else range(rank)
        pads = [0] * 2 * rank
        for i, axis in enumerate(axes):
            axis = counted(axis, rank)
            pads[axis], pads[axis + rank] = given[i], given[i + len(given) // 2]
    if mode != "constant":
        _require_source(mode, source.shape, pads)
    out = ctx.output(output, image=source.dtype == F32 and (
        prefers_image(source) or ctx.placement.read_as_image(output)))
    if mode == "constant":
        ctx.fill(out, value)
    # a negative pad cuts: the copied block starts where both exist
    begin = [max(0, -p) for p in pads[:rank]]
    extent = [n + min(0, a) + min(0, b) for n, a, b in zip(source.shape, pads[:rank], pads[rank:])]
    if min(extent, default=1) <= 0:
        return
    ctx.copy(source.view(extent, source.strides, sum(i * s for i, s in zip(begin, source.strides))),
             out.view(extent, out.strides, sum(max(0, p) * s for p, s in zip(pads[:rank], out.strides))))
    if mode != "constant":
        for axis in range(rank):
            _repeat(ctx, out, mode, axis, source.shape[axis], pads[axis], pads[axis + rank])


def _require_source(mode: str, shape, pads) -> None:
    """Whether there is enough to copy from."""
    if mode not in ("reflect", "edge", "wrap"):
        raise ValueError(f"mode {mode!r}")
    if min(pads, default=0) < 0:
        raise NotNative("padding by reflection or repetition that also cuts")
    if any(max(a, b) > (n - 1 if mode == "reflect" else n if mode == "wrap" else n and a + b)
           for n, a, b in zip(shape, pads, pads[len(shape):])):
        raise NotNative("padding that repeats more than there is")


def _repeat(ctx, out: Tensor, mode: str, axis: int, n: int, before: int, after: int) -> None:
    """Fill both ends of an axis from its middle, whose other axes need not be filled yet."""
    step = out.strides[axis]
    sources = {"reflect": (2 * before, before + n - 2, -step), "edge": (before, before + n - 1, 0), "wrap": (n, before, step)}
    first, last, stride = sources[mode]
    for count, start, target in ((before, first, 0), (after, last, before + n)):
        if count:
            shape = [count if i == axis else m for i, m in enumerate(out.shape)]
            strides = [stride if i == axis else s for i, s in enumerate(out.strides)]
            ctx.copy(out.view(shape, strides, start * step), out.view(shape, out.strides, target * step))
