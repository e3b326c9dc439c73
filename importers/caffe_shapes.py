"""Caffe's layers that move, cut, join, reduce or resize blobs."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from infold.errors import UnsupportedError
from infold.importers.caffe_graph import INT_MAX, Site, layer


@layer("Concat")
def concat(site: Site) -> ir.Value:
    """Blobs one after the other along an axis, channels by default."""
    param = site.layer.concat_param
    if not site.bottoms:
        site.fail("has no bottoms")
    shapes = [site.shape(value) for value in site.bottoms]
    axis = site.axis(param.concat_dim if param.HasField("concat_dim") else param.axis, len(shapes[0]))
    rest = {(*shape[:axis], None, *shape[axis + 1 :]) for shape in shapes}
    if len(rest) != 1:
        site.fail(f"along axis {axis} it cannot join the shapes {', '.join(str(list(shape)) for shape in shapes)}")
    return site.node("Concat", site.bottoms, axis=axis)


@layer("Slice")
def slice_(site: Site) -> list[ir.Value]:
    """A blob cut at the slice points, or into equal parts."""
    param, shape, count = site.layer.slice_param, site.shape(site.bottom), len(site.layer.top)
    axis = site.axis(param.slice_dim if param.HasField("slice_dim") else param.axis, len(shape))
    points = list(param.slice_point)
    if not points and shape[axis] % max(count, 1) == 0:
        points = [shape[axis] // count * index for index in range(1, count)]
    sizes = [end - start for start, end in zip([0, *points], [*points, shape[axis]])]
    if len(sizes) != count or any(size < 1 for size in sizes):
        site.fail(f"cannot cut the {shape[axis]} entries of axis {axis} at {points} into {count} blobs")
    return site.nodes("Split", [site.bottom, site.constant(sizes, "sizes")], count, axis=axis)


@layer("Split")
def split(site: Site) -> list[ir.Value]:
    """The same blob under several names."""
    return [site.node("Identity", [site.bottom], f"{index}" if index else "") for index in range(len(site.layer.top))]


@layer("Crop")
def crop(site: Site) -> ir.Value:
    """The first blob cut to the shape of the second from an axis on, starting at the offsets."""
    param, (value, like) = site.layer.crop_param, site.take(2)
    shape, wanted = site.shape(value), site.shape(like)
    axis = site.axis(param.axis, len(shape))
    offsets = list(param.offset) or [0]
    offsets = offsets * (len(shape) - axis) if len(offsets) == 1 else offsets
    ends = [offset + size for offset, size in zip(offsets, wanted[axis:])]
    if len(wanted) != len(shape) or len(offsets) != len(shape) - axis or any(end > size for end, size in zip(ends, shape[axis:])):
        site.fail(f"cannot cut {list(wanted)} out of {list(shape)} from axis {axis} on with the offsets {list(param.offset)}")
    return _slice(site, value, offsets, ends, list(range(axis, len(shape))))


def _slice(site: Site, value: ir.Value, starts: list[int], ends: list[int], axes: list[int], suffix: str = "") -> ir.Value:
    bounds = {"starts": starts, "ends": ends, "axes": axes}
    return site.node("Slice", [value, *(site.constant(numbers, name) for name, numbers in bounds.items())], suffix)


@layer("Flatten")
def flatten(site: Site) -> ir.Value:
    """The axes from `axis` to `end_axis` as one."""
    param, shape = site.layer.flatten_param, site.shape(site.bottom)
    first, last = site.axis(param.axis, len(shape)), site.axis(param.end_axis, len(shape))
    if first > last:
        site.fail(f"axis {param.axis} lies behind end_axis {param.end_axis}")
    result = (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])
    if first == 1 and last == len(shape) - 1:
        return site.node("Flatten", [site.bottom], axis=1)
    return site.reshape(site.bottom, result)


@layer("Reshape")
def reshape(site: Site) -> ir.Value:
    """`num_axes` axes from `axis` on replaced: 0 copies the dimension at that place, -1 is what is left over."""
    param, shape = site.layer.reshape_param, site.shape(site.bottom)
    start = site.axis(param.axis, len(shape), end=True)
    end = len(shape) if param.num_axes == -1 else start + param.num_axes
    if param.num_axes < -1 or end > len(shape):
        site.fail(f"num_axes {param.num_axes} from axis {start} on exceeds the shape {list(shape)}")
    dims = list(param.shape.dim)
    if dims.count(-1) > 1 or any(dim < -1 for dim in dims):
        site.fail(f"the shape {dims} may have one -1, and nothing below")
    for index, dim in enumerate(dims):
        if dim == 0:
            if start + index >= len(shape):
                site.fail(f"the shape {dims} copies axis {start + index} of {list(shape)}, which has no such axis")
            dims[index] = shape[start + index]
    result = [*shape[:start], *dims, *shape[end:]]
    if -1 in result:
        known = -math.prod(result)
        if known < 1 or math.prod(shape) % known:
            site.fail(f"cannot turn the shape {list(shape)} into {result}")
        result[result.index(-1)] = math.prod(shape) // known
    return site.reshape(site.bottom, result)


@layer("Permute")
def permute(site: Site) -> ir.Value:
    """Axes in another order; axes not named follow in theirs."""
    shape, order = site.shape(site.bottom), list(site.layer.permute_param.order)
    if len(set(order)) != len(order) or any(axis >= len(shape) for axis in order):
        site.fail(f"the order {order} is none of the axes of {list(shape)}")
    order += [axis for axis in range(len(shape)) if axis not in order]
    return site.node("Transpose", [site.bottom], perm=order)


@layer("ShuffleChannel")
def shuffle_channel(site: Site) -> ir.Value:
    """Channels dealt out round by round to groups (ShuffleNet)."""
    n, c, h, w = shape = site.image(site.bottom)
    group = site.layer.shuffle_channel_param.group
    if group < 1 or c % group:
        site.fail(f"{group} groups do not divide {c} channels")
    apart = site.reshape(site.bottom, (n, group, c // group, h, w), "apart")
    mixed = site.node("Transpose", [apart], "mix", perm=[0, 2, 1, 3, 4])
    return site.reshape(mixed, shape)


@layer("Softmax")
def softmax(site: Site) -> ir.Value:
    """exp(x) / sum of exp(x) along an axis."""
    return site.node("Softmax", [site.bottom], axis=site.axis(site.layer.softmax_param.axis, len(site.shape(site.bottom))))


@layer("Tile")
def tile(site: Site) -> ir.Value:
    """A blob repeated along an axis."""
    param, shape = site.layer.tile_param, list(site.shape(site.bottom))
    repeats = [1] * len(shape)
    repeats[axis := site.axis(param.axis, len(shape))] = param.tiles
    shape[axis] *= param.tiles
    return site.node("Tile", [site.bottom, site.constant(repeats, "repeats")], shape=shape)


@layer("Reduction")
def reduction(site: Site) -> ir.Value:
    """Sum, sum of magnitudes, sum of squares or mean over all axes from `axis` on, times a coefficient."""
    param, rank = site.layer.reduction_param, len(site.shape(site.bottom))
    op = {1: "ReduceSum", 2: "ReduceL1", 3: "ReduceSumSquare", 4: "ReduceMean"}[param.operation]
    axes = site.constant(list(range(site.axis(param.axis, rank), rank)), "axes")
    top = site.node(op, [site.bottom, axes], "" if param.coeff == 1 else "reduce", keepdims=0)
    return top if param.coeff == 1 else site.node("Mul", [top, site.constant(param.coeff, "coeff")])


@layer("ArgMax")
def arg_max(site: Site) -> ir.Value:
    """Positions of the largest values, as floats; or their values; or, over whole samples, both as (N, 2, top_k)."""
    param, shape = site.layer.argmax_param, site.shape(site.bottom)
    value = site.bottom
    if param.HasField("axis"):
        axis = site.axis(param.axis, len(shape))
        result = [*shape[:axis], param.top_k, *shape[axis + 1 :]]
    else:
        axis = 2
        result = [shape[0], 1, param.top_k]
        value = site.reshape(value, (shape[0], 1, math.prod(shape[1:])), "flatten")
        result += [1] * (len(shape) - 3)
    count = site.shape(value)[axis]
    if not 1 <= param.top_k <= count:
        site.fail(f"top_k {param.top_k} must be 1 to {count}")
    both = param.out_max_val and not param.HasField("axis")
    values, indices = site.nodes("TopK", [value, site.constant([param.top_k], "k")], 2, "topk", axis=axis)
    if param.out_max_val and not both:
        return values
    top = site.node("Cast", [indices], "cast", to=ir.DataType.FLOAT)
    if both:
        result[1] = 2
        top = site.node("Concat", [top, values], "pair", axis=1)
    return top if site.shape(top) == tuple(result) else site.reshape(top, result)


@layer("Interp")
def interp(site: Site) -> ir.Value:
    """Bilinear resizing with aligned corners, after adding (or, where negative, cutting) a border (DeepLab, PSPNet)."""
    param = site.layer.interp_param
    value = site.first
    h, w = site.image(value)[2:]
    before, after = param.pad_beg, param.pad_end
    if before > 0 or after > 0:
        site.fail(f"pad_beg {before} and pad_end {after} must not be positive: Caffe can only cut here")
    h, w = h + before + after, w + before + after
    if before or after:
        value = _slice(site, value, [-before] * 2, [after or INT_MAX] * 2, [2, 3], "crop")
    if len(site.bottoms) == 2:
        sizes = site.image(site.bottoms[1])[2:]
    elif param.HasField("height") and param.HasField("width"):
        sizes = (param.height, param.width)
    elif param.zoom_factor < 1 or param.shrink_factor < 1:
        site.fail(f"zoom_factor {param.zoom_factor} and shrink_factor {param.shrink_factor} must be positive")
    else:
        sizes = tuple(_zoom((size - 1) // param.shrink_factor + 1, param.zoom_factor) for size in (h, w))
    return _resize(site, value, sizes, mode="linear", coordinate_transformation_mode="align_corners")


@layer("Upsample")
def upsample(site: Site) -> ir.Value:
    """Pixels repeated; or, with a maximum's indices as the second bottom, put back where they came from (SegNet)."""
    param = site.layer.upsample_param
    value = site.first
    n, c, h, w = shape = site.image(value)
    scale_h, scale_w = param.scale_h or param.scale, param.scale_w or param.scale
    if scale_h < 1 or scale_w < 1:
        site.fail(f"the scale {scale_h} × {scale_w} must be positive")
    sizes = (param.upsample_h or h * scale_h - param.pad_out_h, param.upsample_w or w * scale_w - param.pad_out_w)
    if len(site.bottoms) == 1:
        if sizes != (h * scale_h, w * scale_w):
            site.fail("without a maximum's indices it can only scale by whole numbers", UnsupportedError)
        return _resize(site, value, sizes, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    mask = site.take(2)[1]
    if mask.dtype != ir.DataType.INT64 or site.shape(mask) != shape:
        site.fail(f"its second bottom {mask.name!r} must be the second top of a maximum Pooling with the shape {list(shape)}")
    result, scale = [n, c, *sizes], [scale_h, scale_w]
    inputs = [value, mask, site.constant(result, "sizes")]
    return site.node("MaxUnpool", inputs, shape=result, kernel_shape=scale, strides=scale)


def _zoom(size: int, factor: int) -> int:
    return size + (size - 1) * (factor - 1)


def _resize(site: Site, value: ir.Value, sizes: tuple[int, int], **attributes: str) -> ir.Value:
    shape = (*site.image(value)[:2], *sizes)
    return site.node("Resize", [value, None, None, site.constant(np.asarray(shape), "sizes")], shape=shape, **attributes)
