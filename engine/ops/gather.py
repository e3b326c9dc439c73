"""Gather: a view where one index is chosen, else rows copied by index."""
from __future__ import annotations

from math import prod

import numpy as np

from ..plan.tensor import ANY
from .base import NotNative, attr, counted, op


@op("Gather", types=ANY)
def gather(ctx, node) -> None:
    name, index_name, output = node.inputs[0].name, node.inputs[1].name, node.outputs[0].name
    shape, index_shape = ctx.shape(name), ctx.shape(index_name)
    axis = counted(attr(node, "axis", 0), len(shape))
    index = ctx.constant_value(node.inputs[1])
    if index is not None and index.size and not (-shape[axis] <= index.min() and index.max() < shape[axis]):
        raise NotNative(f"an index outside the {shape[axis]} entries of axis {axis}")
    if index is not None and index.size == 1:
        source = ctx.tensor(name)
        strides = [*source.strides[:axis], *[0] * len(index_shape), *source.strides[axis + 1:]]
        at = int(index.reshape(-1)[0]) % shape[axis]
        ctx.bind(output, source.view(ctx.shape(output), strides, at * source.strides[axis] if source.size else 0))
        return
    if index is None and ctx.facts[index_name].dtype != np.int64:
        raise NotNative("computed indices that are not int64")
    if 0 in (*shape, *index_shape):
        raise NotNative("an empty tensor")
    x = ctx.rows(name)
    constant = index is not None
    indices = ctx.constant(("int64", index_name), lambda: index.astype(np.int64)) if constant else ctx.rows(index_name)
    out = ctx.output(output, image=False)
    outer, count, row = prod(shape[:axis]), prod(index_shape), prod(shape[axis + 1:])
    ctx.emit("gather", {"in": x, "index": indices, "out": out}, outer=outer, count=count, size=shape[axis], row=row,
             in_outer=shape[axis] * row, in_row=row, out_outer=count * row, out_row=row, item=x.dtype.itemsize)
