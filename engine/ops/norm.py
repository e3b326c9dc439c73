"""Normalisations whose statistics come from the data, all by the `norm` driver: Layer, RMS, Instance, Group, Lp and mean-variance.

What an operator decides is the set of dimensions its statistics run over; any layout of the data will do (`normalize`).
"""
from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np

from .. import _native
from ..plan.tensor import Tensor, prefers_image
from .base import NotNative, attr, counted, op, same_shape
from .epilogue import Epilogue, epilogue, take
from .space import check_rank, space


@op("LayerNormalization", "RMSNormalization", domain="infold", infer=same_shape)  # in older operator sets than theirs
@op("LayerNormalization", "RMSNormalization",
    infer=lambda node, inputs: [inputs[0].shape] if len([o for o in node.outputs if o.name]) == 1 else None)
def row_norm(ctx, node) -> None:
    """Every row, all dimensions from `axis` on, by itself; also its mean and 1 / deviation."""
    _require_float32_statistics(node)
    rms = node.op_type == "RMSNormalization"
    rows(ctx, node, node.inputs[1:3], power=2 if rms else 0, epsilon=attr(node, "epsilon", 1e-5))


def rows(ctx, node, affine, **params) -> None:
    """Normalise over the dimensions from attribute `axis` on, scale and bias by element; outputs 1, 2: mean and 1 / deviation."""
    name = node.inputs[0].name
    shape = ctx.shape(name)
    axis = counted(attr(node, "axis", -1), len(shape))
    reduced = range(axis, len(shape))
    require(shape)
    check_rank(shape, reduced)  # these are contiguous
    tables = {key: t.broadcast(shape) for key, value in zip(("gamma", "beta"), affine)
              if (t := _by_element(ctx, value, shape[axis:])) is not None}
    found = activation(ctx, node)
    x = ctx.tensor(name)
    if not x.view(shape[axis:], x.strides[axis:]).is_rows():
        x = ctx.rows(name)
    out = ctx.output(found.output, image=False)
    given = {key: ctx.output(value.name, image=False).broadcast(shape) for key, value in zip(("mean", "spread"), node.outputs[1:])
             if value.name}
    normalize(ctx, x, out, reduced, found, tables, given, inverse=1, **params)


@op("InstanceNormalization", infer=same_shape)
def instance_norm(ctx, node) -> None:
    _grouped(ctx, node, ctx.shape(node.inputs[0].name)[1])


@op("GroupNormalization", infer=same_shape)
def group_norm(ctx, node) -> None:
    _require_float32_statistics(node)
    _grouped(ctx, node, attr(node, "num_groups"))


@op("GroupNorm", domain="infold", infer=same_shape)
def group_norm_by_channel(ctx, node) -> None:
    """(x, gamma, beta; groups, epsilon), the GroupNormalization of operator set 21."""
    _grouped(ctx, node, attr(node, "groups"))


@op("FilterResponseNorm", domain="infold", infer=same_shape)
def filter_response_norm(ctx, node) -> None:
    """(x, gamma, beta; epsilon): x / sqrt(mean of squares over the pixels + epsilon) * gamma + beta (arXiv 1911.09737)."""
    _grouped(ctx, node, ctx.shape(node.inputs[0].name)[1], power=2)


def _grouped(ctx, node, groups: int, **params) -> None:
    tables = {key: per_channel(ctx, node, index) for index, key in ((1, "gamma"), (2, "beta"))}
    grouped(ctx, node, groups, tables, epsilon=attr(node, "epsilon", 1e-5), **params)


def grouped(ctx, node, groups: int, tables: dict[str, Tensor], **params) -> None:
    """Normalise over all pixels of an image and each of `groups` groups of its channels; tables by channel."""
    name = node.inputs[0].name
    shape = ctx.shape(name)
    if groups < 1 or shape[1] % groups:
        raise NotNative(f"{shape[1]} channels in {groups} groups")
    split = (shape[0], groups, shape[1] // groups, *shape[2:])
    require(split, range(2, len(split)))
    found = activation(ctx, node)
    x, out = images(ctx, name, found.output)

    def by_group(t: Tensor) -> Tensor:
        return t.view(split, (t.strides[0], t.strides[1] * split[2], *t.strides[1:]))

    tables = {key: by_group(by_channel(t, shape)) for key, t in tables.items()}
    normalize(ctx, by_group(x), by_group(out), range(2, len(split)), found, tables, **params)


@op("LpNormalization", infer=same_shape)
def lp_norm(ctx, node) -> None:
    power = attr(node, "p", 2)
    if power not in (1, 2):
        raise NotNative(f"p = {power}")
    _over(ctx, node, [attr(node, "axis", -1)], power=power, divisor=1)


@op("L2Normalization", domain="infold", infer=same_shape)
def l2_norm(ctx, node) -> None:
    """(x; axis, epsilon): x / max(|x|, epsilon) along one axis: the driver's max(floor, v x + |x|)."""
    shape = ctx.shape(node.inputs[0].name)
    tables = {key: ctx.constant(("scalar", value), lambda value=value: np.full((), value, np.float32)).broadcast(shape)
              for key, value in (("v", 0.0), ("floor", attr(node, "epsilon", 1e-12)))}
    _over(ctx, node, [attr(node, "axis", -1)], tables, power=2, divisor=1)


@op("MeanVarianceNormalization", infer=same_shape)
def mean_variance_norm(ctx, node) -> None:
    _over(ctx, node, attr(node, "axes", [0, 2, 3]), offset=1e-9)


def _over(ctx, node, axes: Iterable[int], tables: dict[str, Tensor] | None = None, **params) -> None:
    shape = ctx.shape(node.inputs[0].name)
    reduced = {counted(axis, len(shape)) for axis in axes}
    require(shape, reduced)
    found = activation(ctx, node)
    normalize(ctx, *images(ctx, node.inputs[0].name, found.output), reduced, found, tables, **params)


# What these and others share

def require(shape, reduced=None) -> None:
    """Raise NotNative, before anything is emitted, for what `normalize` cannot do."""
    if 0 in shape:
        raise NotNative("an empty tensor")
    if reduced is not None:
        check_rank(shape, reduced)
        check_rank(shape, set(range(len(shape))) - set(reduced))


def _require_float32_statistics(node) -> None:
    if attr(node, "stash_type", 1) != 1:
        raise NotNative("statistics that are not float32")


def activation(ctx, node) -> Epilogue:
    """The activation that follows, taken over."""
    found = epilogue(ctx, node)
    take(ctx, found)
    return found


def images(ctx, name: str, output: str) -> tuple[Tensor, Tensor]:
    """A value in the layout it has, channels last or rows, and memory for the output in the same."""
    x = ctx.tensor(name)
    image = prefers_image(x)
    if not image and not x.is_rows() and x.strides[-1] != 1:
        x = ctx.rows(name)
    return x, ctx.output(output, image=image)


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


def per_channel(ctx, node, index: int) -> Tensor:
    """An input with a number per channel. (GroupNormalization's were one per group in opset 18, per channel from 21 on.)"""
    value, channels = node.inputs[index], ctx.shape(node.inputs[0].name)[1]
    if ctx.shape(value.name) == (channels,):
        return ctx.rows(value.name)
    array = ctx.constant_value(value)
    if array is None or array.ndim != 1 or not array.size or channels % array.size:
        raise NotNative("a scale or bias that is computed at run time, or of the wrong size")
    return ctx.constant(("per channel", value.name, channels), lambda: np.repeat(array, channels // array.size))


def by_channel(t: Tensor, shape) -> Tensor:
    """A vector seen with the shape of the data, along dimension 1."""
    return t.view(shape, [int(axis == 1) for axis in range(len(shape))])


def normalize(ctx, x: Tensor, out: Tensor | None, reduced: Iterable[int], found: Epilogue | None = None,
              tables: dict[str, Tensor] | None = None, given: dict[str, Tensor] | None = None, **params) -> None:
    """Emit the step, for any strides.

    Args:
        reduced: the dimensions of x that statistics are taken over; `require` must have let them pass.
        found: whose activation is applied.
        tables: gamma, beta, v, floor as they are given; in the shape of x, all with the same strides.
        given: mean, spread: where to store these, in the shape of x with stride 0 along `reduced`.
        params: power, epsilon, offset, inverse and divisor (default: the number of elements) of the driver.
    """
    tables, given = tables or {}, given or {}
    flat = (0,) * len(x.shape)
    operands = [t.strides if t is not None else flat
                for t in (x, out or x, next(iter(tables.values()), None), next(iter(given.values()), None))]

    def walk(dims: list[int]) -> list[tuple[int, ...]]:
        """(extent, strides of each operand), outermost first."""
        extents, strides = space([x.shape[d] for d in dims], *([s[d] for d in dims] for s in operands), ordered=True)
        return list(zip(extents, *strides))

    pixels, n = walk(sorted(reduced)), walk([d for d in range(len(x.shape)) if d not in reduced])
    one = (1, 0, 0, 0, 0)
    channels, group, affine_channel, stat_group = 1, 1, 0, 0

    def contiguous(dim: tuple[int, ...]) -> bool:
        return dim[0] > 1 and dim[1] == dim[2] == 1 and dim[3] in (0, 1)

    if contiguous(pixels[-1]):
        group, _, _, affine_channel, _ = pixels.pop()
        pixels.insert(0, one)
        channels, (groups, *steps, stat) = group, n[-1]
        if groups > 1 and steps == [group, group, group * affine_channel] and pixels[-1] != one:
            n = [one, *n[:-1]]
            channels, stat_group = groups * group, stat
    elif contiguous(n[-1]):
        channels, _, _, affine_channel, stat_group = n.pop()
        n.insert(0, one)
    n_columns, pixel_columns = (list(zip(*walked)) for walked in (n, pixels))
    act = found.activation if found else None
    ctx.emit("norm", {"in": x, "out": out, **tables, **given}, n=n_columns[0], in_stride=n_columns[1], out_stride=n_columns[2],
             affine_stride=n_columns[3], stat_stride=n_columns[4], pixels=pixel_columns[0], in_pixel=pixel_columns[1],
             out_pixel=pixel_columns[2], affine_pixel=pixel_columns[3], channels=channels, group=group,
             affine_channel=affine_channel, stat_group=stat_group, act=_native.ACTS[act.act] if act else 0,
             a=act.a if act else 0.0, b=act.b if act else 0.0,
             near=(_native.cache_bytes(2) or 1 << 19) // 8, far=_native.cache_bytes(3) // 8,  # half of each, in numbers
             **{"divisor": prod(x.shape[d] for d in reduced), **params})
