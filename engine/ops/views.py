"""Operators that move no data: they only look at the same memory through another shape or other strides."""
from __future__ import annotations

from math import prod

import numpy as np

from ..plan.tensor import ANY, prefers_image
from .base import NotNative, attr, counted, integers, op


@op("Identity", "Dropout", types=ANY)
def identity(ctx, node) -> None:
    if node.op_type == "Dropout":
        training = ctx.need(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
        if len([o for o in node.outputs if o.name]) > 1 or (training is not None and bool(training)):
            raise NotNative("a dropout mask")
        if ctx.opset(node) < 7 and not attr(node, "is_test", 0):
            raise NotNative("dropout in training mode")
    ctx.bind(node.outputs[0].name, ctx.tensor(node.inputs[0].name))


def _new_shape(node, inputs) -> list[list[int]] | None:
    """Of Reshape; before opset 5 the shape is an attribute."""
    shape = attr(node, "shape")
    if node.op_type == "Reshape" and len(inputs) == 2:
        shape = integers(inputs[1])
    old = inputs[0].shape
    if shape is None or min(shape, default=0) < -1 or shape.count(-1) > 1 or (0 in shape and attr(node, "allowzero", 0)):
        return None
    if any(i >= len(old) for i, n in enumerate(shape) if n == 0):
        return None
    shape = [old[i] if n == 0 else n for i, n in enumerate(shape)]
    rest = prod(n for n in shape if n != -1)
    shape = [prod(old) // rest if n == -1 and rest else n for n in shape]
    return [shape] if prod(shape) == prod(old) and -1 not in shape else None


@op("Reshape", "Flatten", "Squeeze", "Unsqueeze", infer=_new_shape, types=ANY)
def reshape(ctx, node) -> None:
    output = node.outputs[0].name
    source, shape = ctx.tensor(node.inputs[0].name), ctx.shape(node.outputs[0].name)
    if prod(shape) != source.size:
        raise ValueError(f"{list(source.shape)} and {list(shape)} have different sizes")
    ctx.bind(output, reshaped(ctx, source, output))


def reshaped(ctx, source, output: str):
    """The elements in the output's shape: a view, or stored so that both shapes are views: as an image if that works and the source
    is one, else row-major."""
    shape = ctx.shape(output)
    seen = source.reshape(shape)
    if seen is not None:
        return seen
    layouts = (True, False) if len(shape) >= 3 and source.strides[-1] != 1 and source.dtype == np.float32 else (False,)
    for image in layouts:
        target = ctx.new_image(shape, ctx.placement.border(output) or ()) if image else ctx.temporary(shape, source.dtype)
        same = target.reshape(source.shape)
        if same is not None:
            ctx.copy(source, same)
            return target
    raise NotNative("a reshape without a common layout")  # not reached: row-major always works


def _order(node, rank: int) -> list[int]:
    order = list(attr(node, "perm", range(rank)[::-1]))
    if sorted(order) != list(range(rank)):
        raise ValueError(f"perm {order} is no order of {rank} dimensions")
    return order


@op("Transpose", infer=lambda node, inputs: [[inputs[0].shape[i] for i in _order(node, len(inputs[0].shape))]], types=ANY)
def transpose(ctx, node) -> None:
    source = ctx.tensor(node.inputs[0].name)
    order = _order(node, len(source.shape))
    ctx.bind(node.outputs[0].name, source.view([source.shape[i] for i in order], [source.strides[i] for i in order]))


@op("Expand", types=ANY)
def expand(ctx, node) -> None:
    ctx.need(node.inputs[1])
    ctx.bind(node.outputs[0].name, ctx.tensor(node.inputs[0].name).broadcast(ctx.shape(node.outputs[0].name)))


def _part_shapes(node, inputs) -> list[list[int]] | None:
    shape, count, sizes = list(inputs[0].shape), len(node.outputs), attr(node, "split")
    axis = counted(attr(node, "axis", 0), len(shape))
    if len(inputs) > 1 and inputs[1] is not None:
        sizes = integers(inputs[1])
    elif sizes is None and attr(node, "num_outputs") == count and shape[axis] % count == 0:
        sizes = [shape[axis] // count] * count
    if sizes is None or len(sizes) != count or sum(sizes) != shape[axis] or min(sizes) < 0:
        return None
    return [[*shape[:axis], size, *shape[axis + 1:]] for size in sizes]


@op("Split", infer=_part_shapes, types=ANY)
def split(ctx, node) -> None:
    source = ctx.tensor(node.inputs[0].name)
    axis, at = counted(attr(node, "axis", 0), len(source.shape)), 0
    for value in node.outputs:
        if not value.name:
            raise NotNative("an output without a name")
        shape = ctx.shape(value.name)
        border = source.border if axis == 1 else ()
        ctx.bind(value.name, source.view(shape, source.strides, at * source.strides[axis], border))
        at += shape[axis]


@op("Slice", types=ANY)
def slice_(ctx, node) -> None:
    source, rank = ctx.tensor(node.inputs[0].name), len(ctx.shape(node.inputs[0].name))
    if ctx.opset(node) < 10:
        starts, ends = attr(node, "starts"), attr(node, "ends")
        axes, steps = attr(node, "axes", list(range(len(starts)))), [1] * len(starts)
    else:
        starts, ends, axes, steps = ([int(i) for i in got] if (got := ctx.need(v)) is not None else None for v in
                                     [*node.inputs[1:5], *[None] * (5 - len(node.inputs))])
        axes = list(range(len(starts))) if axes is None else axes
        steps = [1] * len(starts) if steps is None else steps
    strides, first, channels_only = list(source.strides), 0, True
    for start, end, axis, step in zip(starts, ends, axes, steps):
        axis = counted(axis, rank)
        begin, _, stride = slice(start, end, step).indices(source.shape[axis])
        first += begin * source.strides[axis] if ctx.shape(node.outputs[0].name)[axis] else 0
        strides[axis] = source.strides[axis] * stride
        whole = begin == 0 and stride == 1 and ctx.shape(node.outputs[0].name)[axis] == source.shape[axis]
        channels_only = channels_only and (axis == 1 or whole)
    border = source.border if channels_only and strides == list(source.strides) else ()
    ctx.bind(node.outputs[0].name, source.view(ctx.shape(node.outputs[0].name), strides, first, border))


def _concat_shape(node, inputs):
    """In opset 1 the axis may be absent, and then is 1."""
    shapes = [list(f.shape) for f in inputs]
    axis = counted(attr(node, "axis", 1), len(shapes[0]))
    if any(shape[:axis] + shape[axis + 1:] != shapes[0][:axis] + shapes[0][axis + 1:] for shape in shapes):
        raise ValueError(f"they differ in more than dimension {axis}")
    return [[*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1:]]]


@op("Concat", infer=_concat_shape, types=ANY)
def concat(ctx, node) -> None:
    output = node.outputs[0].name
    shape = ctx.shape(output)
    axis = counted(attr(node, "axis", 1), len(shape))
    for value in node.inputs:
        if len(ctx.shape(value.name)) != len(shape) or any(n != m for d, (n, m) in enumerate(zip(ctx.shape(value.name), shape))
                                                           if d != axis):
            raise ValueError(f"a part of shape {list(ctx.shape(value.name))} in {list(shape)}")
    parts = [ctx.tensor(v.name, half=True) for v in node.inputs if ctx.shape(v.name)[axis]]
    if parts and _adjacent(parts, axis):
        ctx.bind(output, parts[0].view(shape, parts[0].strides, 0, parts[0].border))
        return
    wanted = ctx.placement.parent(node) is not None or any(map(prefers_image, parts))
    image = axis == 1 and ctx.facts[output].dtype == np.float32 and wanted
    out, like = ctx.placement.parent(node) if image else None, None
    if out is None:
        if image and len(shape) > 4 and all(part.shape[1] == 1 for part in parts):  # a stack of images is none: each stays as it is
            like = parts[0].view(shape, [prod(shape) if d == axis else s for d, s in enumerate(parts[0].strides)])
        out = ctx.output(output, image=image and like is None, like=like)
    ctx.bind(output, out)
    at = 0
    for part in parts:
        target = out.view(part.shape, out.strides, at * out.strides[axis])
        if part.buffer is not out.buffer or part.offset != target.offset:
            ctx.copy(part, target)
        at += part.shape[axis]


def _adjacent(parts, axis: int) -> bool:
    """Whether the parts already lie one behind the other along the axis, in one buffer."""
    first, offset = parts[0], parts[0].offset
    for part in parts:
        if part.buffer is not first.buffer or part.strides != first.strides or part.offset != offset:
            return False
        offset += part.shape[axis] * part.strides[axis] * part.dtype.itemsize
    return first.buffer.kind == "arena"
