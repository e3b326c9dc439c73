"""Normalisations whose statistics come from the data: Layer, RMS, Instance and Group by the `norm` driver, and LRN."""
from __future__ import annotations

from math import prod

import numpy as np

from .. import _native
from ..plan.tensor import Tensor
from .base import NotNative, attr, op, same_shape
from .epilogue import Epilogue, epilogue, take
from .product import pad4
from .space import check_rank, space

MAX_WINDOW = 128  # channels: the driver counts up to 64 on each side


@op("LayerNormalization", "RMSNormalization",
    infer=lambda node, inputs: [inputs[0].shape] if _one_output(node) else None)
def row_norm(ctx, node) -> None:
    """Every row, all dimensions from `axis` on, by itself."""
    if not _one_output(node):
        raise NotNative("mean and deviation as outputs")
    if attr(node, "stash_type", 1) != 1:
        raise NotNative("statistics that are not float32")
    name = node.inputs[0].name
    shape = ctx.shape(name)
    axis = attr(node, "axis", -1) % len(shape)
    check_rank(shape, range(axis, len(shape)))
    length = prod(shape[axis:])
    if 0 in shape:
        raise NotNative("an empty tensor")
    affine = [*node.inputs[1:3], *[None] * (3 - len(node.inputs))]
    gamma, beta = (_by_element(ctx, value, shape[axis:]) for value in affine)
    found = _activation(ctx, node)
    x = ctx.tensor(name)
    if not x.view(shape[axis:], x.strides[axis:]).is_rows():
        x = ctx.rows(name)
    out = ctx.output(found.output, image=False)
    extents, (x_steps, out_steps) = space(shape[:axis], x.strides[:axis], out.strides[:axis])
    ctx.emit("norm", {"in": x, "gamma": gamma, "beta": beta, "out": out}, n=extents, in_stride=x_steps,
             out_stride=out_steps, pixels=1, channels=length, group=length, rms=node.op_type == "RMSNormalization",
             epsilon=attr(node, "epsilon", 1e-5), **_act(found))


def _activation(ctx, node) -> Epilogue:
    """The activation that follows, taken over; the driver adds nothing and has no slopes."""
    found = epilogue(ctx, node)
    if found.residual is not None or found.activation.slope is not None:
        return Epilogue(node.outputs[0].name)
    take(ctx, found)
    return found


def _act(found: Epilogue) -> dict:
    return {"act": _native.ACTS[found.activation.act], "a": found.activation.a, "b": found.activation.b}


def _one_output(node) -> bool:
    return len([o for o in node.outputs if o.name]) == 1


def _by_element(ctx, value, shape) -> Tensor | None:
    """A scale or shift as one contiguous row over the normalised dimensions."""
    if value is None or not value.name:
        return None
    if ctx.shape(value.name) == tuple(shape):
        return ctx.rows(value.name)
    array = ctx.constant_value(value)
    if array is None or array.ndim > len(shape):
        raise NotNative("a scale or bias that is computed at run time, or of another rank")
    return ctx.constant(("by element", value.name, tuple(shape)), lambda: np.broadcast_to(array, shape))


@op("InstanceNormalization", infer=same_shape)
def instance_norm(ctx, node) -> None:
    channels = ctx.shape(node.inputs[0].name)[1]
    _image_norm(ctx, node, 1, *(_per_channel(ctx, node, i, channels) for i in (1, 2)))


@op("GroupNormalization", infer=same_shape)
def group_norm(ctx, node) -> None:
    channels, groups = ctx.shape(node.inputs[0].name)[1], attr(node, "num_groups")
    if groups < 1 or channels % groups:
        raise NotNative(f"{channels} channels in {groups} groups")
    if attr(node, "stash_type", 1) != 1:
        raise NotNative("statistics that are not float32")
    _image_norm(ctx, node, channels // groups, *(_per_channel(ctx, node, i, channels) for i in (1, 2)))


def _per_channel(ctx, node, index: int, channels: int) -> Tensor:
    """Scale or bias by channel. (GroupNormalization gave one per group in opset 18, one per channel from 21 on.)"""
    value = node.inputs[index]
    if ctx.shape(value.name) == (channels,):
        return ctx.rows(value.name)
    array = ctx.constant_value(value)
    if array is None or array.ndim != 1 or not array.size or channels % array.size:
        raise NotNative("a scale or bias that is computed at run time, or of the wrong size")
    return ctx.constant(("per channel", value.name, channels), lambda: np.repeat(array, channels // array.size))


def _image_norm(ctx, node, group: int, gamma: Tensor, beta: Tensor) -> None:
    """Statistics over all pixels of an image and `group` neighbouring channels."""
    name = node.inputs[0].name
    shape = ctx.shape(name)
    if not 3 <= len(shape) <= 6:
        raise NotNative(f"rank {len(shape)}")
    if 0 in shape:
        raise NotNative("an empty tensor")
    found = _activation(ctx, node)
    x, out = ctx.image(name), ctx.output(found.output, image=True)
    pixels, (x_steps, out_steps) = space(shape[2:], x.strides[2:], out.strides[2:])
    ctx.emit("norm", {"in": x, "gamma": gamma, "beta": beta, "out": out}, n=pad4(shape[:1], 1),
             in_stride=pad4(x.strides[:1], 0), out_stride=pad4(out.strides[:1], 0), pixels=pixels, in_pixel=x_steps,
             out_pixel=out_steps, channels=shape[1], group=group, epsilon=attr(node, "epsilon", 1e-5),
             **_act(found))


@op("LRN", infer=same_shape)
def lrn(ctx, node) -> None:
    """Across channels: half of the window before, half (the larger, if even) after."""
    name = node.inputs[0].name
    shape, size = ctx.shape(name), attr(node, "size")
    if not 3 <= len(shape) <= 5 or not 1 <= size <= MAX_WINDOW:
        raise NotNative(f"rank {len(shape)}, window {size}")
    x, out = ctx.image(name), ctx.output(node.outputs[0].name, image=True)
    order = [0, *range(2, len(shape))]
    extents, (x_steps, out_steps) = space(*([t[i] for i in order] for t in (shape, x.strides, out.strides)))
    ctx.emit("lrn", {"in": x, "out": out}, n=extents, in_stride=x_steps, out_stride=out_steps, channels=shape[1],
             before=(size - 1) // 2, after=size // 2, scale=attr(node, "alpha", 1e-4) / size,
             bias=attr(node, "bias", 1.0), beta=attr(node, "beta", 0.75))
