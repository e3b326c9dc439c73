"""Operators that pick or place elements by index: one step of the driver `index`, whatever the layouts."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import _native
from ..plan.tensor import ANY, TYPES, Tensor
from ..plan.walk import MAX_DIMS, collapse
from .base import NotNative, attr, counted, op

Steps = Sequence[int]


def indices(ctx, name: str) -> Tensor:
    """Computed or constant indices of any integer type, as int64."""
    if len(ctx.shape(name)) > MAX_DIMS:
        raise NotNative(f"more than {MAX_DIMS} dimensions")
    index = ctx.tensor(name)
    return index if index.dtype == np.int64 else ctx.cast(index, np.int64)


def by_index(ctx, data: Tensor, index: Tensor, other: Tensor, axes: Steps, data_steps: Steps, index_steps: Steps,
             part_stride: int = 0, place: str = "") -> None:
    """other[x] = data[at(x)] for every x, or with `place`, a typed loop, data[at(x)] = place(data[at(x)], other[x]).

    at(x) follows data_steps, and along each of `axes` the number that index_steps lead to.
    """
    if other.size == 0:
        return
    if 0 in (data.shape[axis] for axis in axes):
        raise ValueError(f"an index into the shape {list(data.shape)}")
    shape, strides = collapse(other.shape, data_steps, index_steps, other.strides)
    padded = [0] * (MAX_DIMS - len(axes))
    step, source, target = ("scatter", other, data) if place else ("gather", data, other)
    ctx.emit(step, {"in": source, "index": index, "out": target}, shape=shape, data_stride=strides[0],
             index_stride=strides[1], other_stride=strides[2], parts=len(axes), part_stride=part_stride,
             size=[data.shape[a] for a in axes] + padded, scale=[data.strides[a] for a in axes] + padded,
             loop=_native.LOOPS[place or f"COPY_{data.dtype.itemsize}"])


def _evenly(index: np.ndarray | None, size: int) -> tuple[int, list[int]] | None:
    """The first of constant indices into `size` elements, and their steps by dimension, if they are even (one index alone; windows
    over an image, as im2col picks them)."""
    if index is None or index.size == 0 or index.min() < -size or index.max() >= size:
        return None
    index = np.where(index < 0, index + size, index).astype(np.int64)
    first = int(index.flat[0])
    steps = [int(np.moveaxis(index, d, 0)[1].flat[0]) - first if n > 1 else 0 for d, n in enumerate(index.shape)]
    return (first, steps) if (index == first + sum(np.ix_(*map(np.multiply, steps, map(np.arange, index.shape))))).all() else None


@op("Gather", types=ANY)
def gather(ctx, node) -> None:
    data, output, shape = ctx.tensor(node.inputs[0].name), node.outputs[0].name, ctx.shape(node.outputs[0].name)
    axis = counted(attr(node, "axis", 0), len(data.shape))
    if (places := _evenly(ctx.constant_value(node.inputs[1]), data.shape[axis])) is not None:
        steps = [step * data.strides[axis] for step in places[1]]
        ctx.bind(output, data.view(shape, [*data.strides[:axis], *steps, *data.strides[axis + 1:]], places[0] * data.strides[axis]))
        return
    index, behind = indices(ctx, node.inputs[1].name), [0] * (len(data.shape) - axis - 1)
    by_index(ctx, data, index, ctx.output(output, image=False), [axis],
             [*data.strides[:axis], *[0] * len(index.shape), *data.strides[axis + 1:]], [*[0] * axis, *index.strides, *behind])


@op("GatherElements", types=ANY)
def gather_elements(ctx, node) -> None:
    data, index = ctx.tensor(node.inputs[0].name), indices(ctx, node.inputs[1].name)
    pick_elements(ctx, data, index, ctx.output(node.outputs[0].name, image=False), attr(node, "axis", 0))


def pick_elements(ctx, data: Tensor, index: Tensor, other: Tensor, axis: int, place: str = "") -> None:
    """`by_index` along one axis, where every element has an index of its own."""
    axis = counted(axis, len(data.shape))
    if len(index.shape) != len(data.shape) or index.shape != other.shape or any(
            n > m for d, (n, m) in enumerate(zip(index.shape, data.shape)) if d != axis):
        raise ValueError(f"indices of shape {list(index.shape)} for {list(data.shape)}")
    steps = [0 if d == axis else s for d, s in enumerate(data.strides)]
    by_index(ctx, data, index, other, [axis], steps, index.strides, place=place)


@op("GatherND", types=ANY)
def gather_nd(ctx, node) -> None:
    data, index = ctx.tensor(node.inputs[0].name), indices(ctx, node.inputs[1].name)
    _rows(ctx, data, index, ctx.output(node.outputs[0].name, image=False), attr(node, "batch_dims", 0))


def _rows(ctx, data: Tensor, index: Tensor, other: Tensor, batch: int = 0, place: str = "") -> None:
    """`by_index` where the last dimension of the indices holds the parts of an index into the axes behind the batch's."""
    parts, lead = index.shape[-1], len(index.shape) - 1
    if not 0 <= batch <= lead or batch + parts > len(data.shape) or data.shape[:batch] != index.shape[:batch] or \
            other.shape != (*index.shape[:-1], *data.shape[batch + parts:]):
        raise ValueError(f"indices of shape {list(index.shape)} for {list(data.shape)} and {list(other.shape)}")
    if parts > 6:
        raise NotNative("indices of more than six numbers")
    steps = [*data.strides[:batch], *[0] * (lead - batch), *data.strides[batch + parts:]]
    by_index(ctx, data, index, other, range(batch, batch + parts), steps,
             [*index.strides[:-1], *[0] * (len(steps) - lead)], index.strides[-1], place)


@op("Scatter", "ScatterElements", "ScatterND", types=ANY)
def scatter(ctx, node) -> None:
    data, updates = ctx.tensor(node.inputs[0].name), ctx.tensor(node.inputs[2].name)
    joined = attr(node, "reduction", "none")
    place = f"COPY_{data.dtype.itemsize}" if joined == "none" else f"{joined.upper()}_{TYPES[data.dtype]}"
    if place not in _native.LOOPS:
        raise NotNative(f"no loop {place}")
    out = ctx.output(node.outputs[0].name, image=False, like=data)
    ctx.copy(data, out)
    index = indices(ctx, node.inputs[1].name)
    if node.op_type == "ScatterND":
        _rows(ctx, out, index, updates, place=place)
    else:
        pick_elements(ctx, out, index, updates, attr(node, "axis", 0), place)


@op("ReverseSequence", types=ANY)
def reverse_sequence(ctx, node) -> None:
    """The first lengths[b] entries of each sequence come from the other end."""
    data, lengths = ctx.tensor(node.inputs[0].name), ctx.tensor(node.inputs[1].name)
    time, batch = (counted(attr(node, name, default), len(data.shape)) for name, default in (("time_axis", 0), ("batch_axis", 1)))
    shape = (data.shape[time], data.shape[batch])
    steps = ctx.constant(("range", shape[0]), lambda: np.arange(shape[0])[:, None]).broadcast(shape)
    inside, index = ctx.temporary(shape, np.bool_), ctx.temporary(shape, np.int64)
    ctx.map("LESS_i64", [steps, lengths], inside)
    ctx.map("SUB_i64", [lengths, steps], index)
    ctx.map("SUB_i64", [index, ctx.scalar(1, np.int64)], index)
    ctx.map("WHERE_8", [inside, index, steps], index)
    strides = [0] * len(data.shape)
    strides[time], strides[batch] = index.strides
    pick_elements(ctx, data, index.view(data.shape, strides), ctx.output(node.outputs[0].name, image=False, like=data), time)
