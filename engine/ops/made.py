"""Tensors that follow from shapes and a few numbers: fillings, ranges, triangles, repetitions."""
from __future__ import annotations

from math import prod

import numpy as np

from ..plan.tensor import ANY, NUMBERS
from .base import NotNative, attr, counted, op
from .views import reshaped


@op("ConstantOfShape", by_value=True, types=ANY)
def constant_of_shape(ctx, node) -> None:
    value = node.attributes.get("value")
    ctx.fill(ctx.output(node.outputs[0].name, image=False), 0 if value is None else value.value.numpy().reshape(-1)[0])


def _range_shape(node, inputs):
    """onnx's inference refuses limits that are not scalars, though of one element, once it knows them."""
    if any(f.value is None for f in inputs):
        return None
    start, limit, step = (f.value.reshape(-1)[0].item() for f in inputs)
    return [[max(0, int(-((start - limit) // step)))]]


@op("Range", infer=_range_shape, by_value=True, types=NUMBERS)
def range_(ctx, node) -> None:
    start, limit, step = (ctx.need(v).reshape(-1)[0] for v in node.inputs)
    count = ctx.shape(node.outputs[0].name)[0]
    ctx.afford(count * step.dtype.itemsize)
    numbers = ctx.constant(("range", start, limit, step), lambda: start + step * np.arange(count, dtype=step.dtype))
    ctx.bind(node.outputs[0].name, numbers)


@op("EyeLike", types=ANY)
def eye_like(ctx, node) -> None:
    shape, dtype = ctx.shape(node.outputs[0].name), ctx.facts[node.outputs[0].name].dtype
    ctx.afford(prod(shape) * dtype.itemsize)
    ctx.bind(node.outputs[0].name, ctx.constant(("eye", shape, dtype), lambda: np.eye(*shape, attr(node, "k", 0)).astype(dtype)))


@op("Trilu", types=ANY)
def trilu(ctx, node) -> None:
    x, upper = ctx.tensor(node.inputs[0].name), bool(attr(node, "upper", 1))
    if len(x.shape) > 6:
        raise NotNative(f"rank {len(x.shape)}")
    given = ctx.need(node.inputs[1]) if len(node.inputs) > 1 else None
    k = 0 if given is None else int(given.reshape(-1)[0])
    ctx.afford(prod(x.shape[-2:]))
    k = max(-x.shape[-2] - 1, min(x.shape[-1] + 1, k))
    mask = ctx.constant(("triangle", x.shape[-2:], k), lambda: np.tri(*x.shape[-2:], k - upper, dtype=bool))
    kept, zero = (ctx.scalar(0, x.dtype), x) if upper else (x, ctx.scalar(0, x.dtype))
    ctx.map(f"WHERE_{x.dtype.itemsize}", [mask, kept, zero], ctx.output(node.outputs[0].name, image=False))


@op("Tile", types=ANY)
def tile(ctx, node) -> None:
    """Each dimension is seen as (repetitions, entries), the repetitions without a step."""
    x, repeats = ctx.tensor(node.inputs[0].name), [int(n) for n in ctx.need(node.inputs[1])]
    if ctx.opset(node) < 6:
        axis = int(ctx.need(node.inputs[2]).reshape(-1)[0])
        repeats = [repeats[0] if d == counted(axis, len(x.shape)) else 1 for d in range(len(x.shape))]
    if len(repeats) != len(x.shape):
        raise ValueError(f"{len(repeats)} repetitions of {len(x.shape)} dimensions")
    if 2 * sum(n != 1 for n in repeats) + sum(n == 1 for n in repeats) > 6:
        raise NotNative("more than six dimensions and repetitions")
    seen = x.view([n for pair in zip(repeats, x.shape) for n in pair], [s for step in x.strides for s in (0, step)])
    ctx.bind(node.outputs[0].name, reshaped(ctx, seen, node.outputs[0].name))
