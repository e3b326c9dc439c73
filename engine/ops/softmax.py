"""Softmax and LogSoftmax: along one axis from opset 13 on, before that over all dimensions from `axis` on."""
from __future__ import annotations

from math import prod

from ..plan.tensor import Tensor, prefers_image
from .base import attr, counted, op, same_shape
from .space import check_rank, space


@op("Softmax", "LogSoftmax", infer=same_shape)
def softmax(ctx, node) -> None:
    name, output = node.inputs[0].name, node.outputs[0].name
    shape = ctx.shape(name)
    log = node.op_type == "LogSoftmax"
    flat = ctx.opset(node) < 13
    axis = attr(node, "axis", 1 if flat else -1)
    axis = counted(axis, len(shape)) if axis != len(shape) else axis
    if flat and any(n != 1 for n in shape[axis + 1:]):
        x, out = ctx.rows(name), ctx.output(output, image=False)
        lead, tail = prod(shape[:axis]), prod(shape[axis:])
        _rows(ctx, x.view((lead, tail), (tail, 1)), out.view((lead, tail), (tail, 1)), 1, log)
        return
    check_rank(shape, (axis,))
    x = ctx.tensor(name)
    one = axis >= len(shape) or shape[axis] == 1
    out = ctx.output(output, image=prefers_image(x))
    if one or x.strides[axis] == out.strides[axis] == 1:
        _rows(ctx, x, out, axis, log)
        return
    work = _together(ctx, shape, axis)
    if x.strides[axis] != 1:
        ctx.copy(x, work)
        x = work
    _rows(ctx, x, work, axis, log)
    ctx.copy(work, out)


def _together(ctx, shape, axis: int) -> Tensor:
    """Memory in which the axis is contiguous."""
    order = [i for i in range(len(shape)) if i != axis] + [axis]
    memory = ctx.temporary([shape[i] for i in order])
    return memory.view(shape, [memory.strides[order.index(i)] for i in range(len(shape))])


def _rows(ctx, x: Tensor, out: Tensor, axis: int, log: bool) -> None:
    rest = [i for i in range(len(x.shape)) if i != axis]
    extents, (x_steps, out_steps) = space(*([t[i] for i in rest] for t in (x.shape, x.strides, out.strides)))
    if x.size:
        ctx.emit("softmax", {"in": x, "out": out}, n=extents, in_stride=x_steps, out_stride=out_steps,
                 length=x.shape[axis] if axis < len(x.shape) else 1, log=log)
