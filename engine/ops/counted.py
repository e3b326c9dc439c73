"""Operators whose result is as long as the data say: computed into memory for the longest there can be, and counted."""
from __future__ import annotations

from math import prod

import numpy as np

from ..plan.tensor import ANY, Tensor
from ..plan.walk import MAX_DIMS
from .base import NotNative, attr, counted, op
from .index import by_index
from .order import first

I64 = np.dtype(np.int64)


def _positions(ctx, x: Tensor, target: Tensor, count: Tensor) -> None:
    """target (rank, size): the coordinates of the elements that are not 0; count: how many."""
    truth = x if x.dtype == np.bool_ else ctx.cast(x, np.bool_)
    if not truth.is_rows():
        dense = ctx.temporary(x.shape, np.bool_)
        ctx.copy(truth, dense)
        truth = dense
    ctx.emit("nonzero", {"in": truth, "out": target, "count": count}, shape=[1] * (MAX_DIMS - len(x.shape)) + list(x.shape),
             dims=len(x.shape))


def _count(ctx, node) -> Tensor:
    return ctx.output(ctx.counts[node.outputs[0].name], image=False)


@op("NonZero", bound=lambda node, inputs: ((len(inputs[0].shape), prod(inputs[0].shape)), I64, 1), types=ANY)
def nonzero(ctx, node) -> None:
    x = ctx.tensor(node.inputs[0].name)
    if not 1 <= len(x.shape) <= MAX_DIMS:
        raise NotNative(f"rank {len(x.shape)}")
    _positions(ctx, x, ctx.output(node.outputs[0].name, image=False), _count(ctx, node))


def _most_compressed(node, inputs):
    shape, (condition,) = inputs[0].shape, inputs[1].shape
    if "axis" not in node.attributes:
        return (min(prod(shape), condition),), inputs[0].dtype, 0
    axis = counted(attr(node, "axis"), len(shape))
    return [min(n, condition) if d == axis else n for d, n in enumerate(shape)], inputs[0].dtype, axis


@op("Compress", bound=_most_compressed, types=ANY)
def compress(ctx, node) -> None:
    data, condition = ctx.tensor(node.inputs[0].name), ctx.tensor(node.inputs[1].name)
    axis = attr(node, "axis")
    if axis is None:
        data, axis = ctx.rows(node.inputs[0].name).view((data.size,), (1,)), 0
    axis, shape = counted(axis, len(data.shape)), ctx.shape(node.outputs[0].name)
    if len(shape) > MAX_DIMS:
        raise NotNative(f"rank {len(shape)}")
    index = ctx.temporary((1, shape[axis]), I64)
    ctx.fill(index, 0)  # what lies behind those found is picked, too, and not counted
    _positions(ctx, condition.view((shape[axis],), condition.strides), index, _count(ctx, node))
    steps = [0 if d == axis else s for d, s in enumerate(data.strides)]
    by_index(ctx, data, index, ctx.output(node.outputs[0].name, image=False), [axis], steps,
             [int(d == axis) for d in range(len(shape))])


def _most_boxes(node, inputs):
    batch, classes, boxes = inputs[1].shape
    limit = inputs[2].value if len(inputs) > 2 and inputs[2] is not None else np.zeros(1, np.int64)
    most = boxes if limit is None else max(0, min(boxes, int(limit.reshape(-1)[0])))
    return (batch * classes * most, 3), I64, 0


@op("NonMaxSuppression", bound=_most_boxes, types=("f32", "i64"))
def non_max_suppression(ctx, node) -> None:
    def number(index: int, default: float) -> float:
        given = ctx.need(node.inputs[index]) if len(node.inputs) > index else None
        return default if given is None else given.reshape(-1)[0]

    boxes, scores, limit = ctx.rows(node.inputs[0].name), ctx.rows(node.inputs[1].name), int(number(2, 0))
    batch, classes, count = scores.shape
    if boxes.shape != (batch, count, 4) or boxes.dtype != np.float32 or scores.dtype != np.float32:
        raise ValueError(f"boxes of shape {list(boxes.shape)} and scores of {list(scores.shape)}")
    ctx.emit("nms", {"boxes": boxes, "scores": scores, "index": first(ctx, scores, 2, count, True),
                     "out": ctx.output(node.outputs[0].name, image=False), "count": _count(ctx, node)},
             batch=batch, classes=classes, boxes=count, limit=max(0, min(limit, count)), center=attr(node, "center_point_box", 0),
             iou=float(number(3, 0.0)), score=float(number(4, -np.inf)))
