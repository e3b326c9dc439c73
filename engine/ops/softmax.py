"""Softmax and LogSoftmax: along one axis from opset 13 on, before that over all dimensions from `axis` on."""
from __future__ import annotations

from math import prod

from .activations import prefers_image
from .base import attr, op, same_shape
from .space import check_rank, space


@op("Softmax", "LogSoftmax", infer=same_shape)
def softmax(ctx, node) -> None:
    name, output = node.inputs[0].name, node.outputs[0].name
    shape = ctx.shape(name)
    log = node.op_type == "LogSoftmax"
    flat = ctx.opset(node) < 13
    axis = attr(node, "axis", 1 if flat else -1)
    axis = axis % len(shape) if axis != len(shape) else axis
    if flat and any(n != 1 for n in shape[axis + 1:]):
        x, out = ctx.rows(name), ctx.output(output, image=False)
        lead, tail = prod(shape[:axis]), prod(shape[axis:])
        _rows(ctx, x.view((lead, tail), (tail, 1)), out.view((lead, tail), (tail, 1)), 1, log)
        return
    check_rank(shape, (axis,))
    x = ctx.tensor(name)
    if axis >= len(shape) or shape[axis] == 1 or x.strides[axis] == 1:
        out = ctx.output(output, image=prefers_image(x))
    else:  # bring the axis together, work in place, and leave the result there
        order = [i for i in range(len(shape)) if i != axis] + [axis]
        together = ctx.temporary([shape[i] for i in order])
        out = together.view(shape, [together.strides[order.index(i)] for i in range(len(shape))])
        ctx.copy(x, out)
        ctx.bind(output, out)
        x = out
    if axis < len(shape) and shape[axis] != 1 and out.strides[axis] != 1:
        target = out
        out = ctx.temporary([*shape[:axis], *shape[axis + 1:], shape[axis]])
        out = out.view(shape, [*out.strides[:axis], 1, *out.strides[axis:-1]])
        _rows(ctx, x, out, axis, log)
        ctx.copy(out, target)
        return
    _rows(ctx, x, out, axis, log)


def _rows(ctx, x, out, axis: int, log: bool) -> None:
    rest = [i for i in range(len(x.shape)) if i != axis]
    extents, (x_steps, out_steps) = space([x.shape[i] for i in rest], [x.strides[i] for i in rest], [out.strides[i] for i in rest])
    if x.size:
        ctx.emit("softmax", {"in": x, "out": out}, n=extents, in_stride=x_steps, out_stride=out_steps,
                 length=x.shape[axis] if axis < len(x.shape) else 1, log=log)
