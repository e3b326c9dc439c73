"""Resize and Upsample of one or two dimensions: nearest, linear and cubic, as tables of input rows and weights."""
from __future__ import annotations

import numpy as np

from ..plan.tensor import Tensor
from .base import NotNative, attr, counted, op

COORDINATES = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners", "tf_half_pixel_for_nn")
ROUND = {
    "round_prefer_floor": lambda x: np.ceil(x - x.dtype.type(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + x.dtype.type(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _upsampled(node, inputs) -> list | None:
    """Output shape of Upsample before opset 7, which onnx does not infer."""
    if node.op_type != "Upsample" or "height_scale" not in node.attributes or len(inputs[0].shape) != 4:
        return None
    scales = (1, 1, attr(node, "height_scale"), attr(node, "width_scale", 1.0))
    return [[int(np.floor(n * np.float64(s))) for n, s in zip(inputs[0].shape, scales)]]


@op("Resize", "Upsample", infer=_upsampled)
def resize(ctx, node) -> None:
    name, output = node.inputs[0].name, node.outputs[0].name
    shape, target = ctx.shape(name), ctx.shape(output)
    if 0 in (*shape, *target):
        raise NotNative("an empty tensor")
    scales = _scales(ctx, node, shape, target)
    axes = [i for i in range(len(shape)) if target[i] != shape[i] or scales[i] != 1]
    if not axes:
        ctx.bind(output, ctx.tensor(name))
        return
    old = node.op_type == "Upsample" or ctx.opset(node) == 10
    mode, cubic_a = attr(node, "mode", "nearest"), attr(node, "cubic_coeff_a", -0.75)
    coordinates = "asymmetric" if old else attr(node, "coordinate_transformation_mode", "half_pixel")
    nearest = "floor" if old else attr(node, "nearest_mode", "round_prefer_floor")
    outside = attr(node, "exclude_outside", 0)
    if coordinates == "tf_crop_and_resize" or attr(node, "antialias", 0) or (outside and mode != "cubic"):
        raise NotNative("a region of interest, antialiasing or excluded borders")
    known = mode in ("nearest", "linear", "bilinear", "cubic") and coordinates in COORDINATES and nearest in ROUND
    if not known or not np.isfinite(scales).all():
        raise NotNative(f"mode {mode!r} with coordinates {coordinates!r}, rounding {nearest!r} and scales {scales}")
    if len(shape) in (3, 4) and axes[0] >= 2:
        x, out = ctx.image(name), ctx.output(output, image=True)
    elif len(shape) == 4 and axes[-1] <= 2 and axes[0] >= 1:  # channels last
        x, out = ctx.rows(name), ctx.output(output, image=False)
        x, out = (t.view([t.shape[i] for i in (0, 3, 1, 2)], [t.strides[i] for i in (0, 3, 1, 2)]) for t in (x, out))
        scales = [scales[i] for i in (0, 3, 1, 2)]
    else:
        raise NotNative(f"axes {axes} of rank {len(shape)}")
    if len(x.shape) == 3:  # a row of pixels
        x, out = (t.view((*t.shape[:2], 1, t.shape[2]), (*t.strides[:2], 0, t.strides[2])) for t in (x, out))
        scales = [*scales[:2], 1.0, scales[2]]
    tables: list[Tensor] = []
    for axis in (2, 3):
        n, length, scale = x.shape[axis], out.shape[axis], scales[axis]
        key = ("resize", mode, coordinates, nearest, cubic_a, outside, n, length, scale)

        def table(part: int, n=n, length=length, scale=scale) -> np.ndarray:
            return _table(mode, coordinates, nearest, cubic_a, outside, n, length, scale)[part]

        tables += [ctx.constant((*key, part), lambda part=part, table=table: table(part)) for part in (0, 1)]
    row, row_weight, column, column_weight = tables
    args = {"in": x, "row": row, "row_weight": row_weight, "column": column, "column_weight": column_weight, "out": out}
    ctx.emit("resize", args, n=[out.shape[i] for i in (0, 2, 3)], in_stride=[x.strides[i] for i in (0, 2, 3)],
             out_stride=[out.strides[i] for i in (0, 2, 3)], in_size=x.shape[2:], taps=[row.shape[1], column.shape[1]],
             channels=x.shape[1])


def _scales(ctx, node, shape, target) -> list[float]:
    """The scale of every dimension: as given, or from the sizes."""
    inputs = [*node.inputs[1:], None, None, None]
    if node.op_type == "Upsample" and ctx.opset(node) < 9:
        given = attr(node, "scales") or [1.0, 1.0, attr(node, "height_scale", 1.0), attr(node, "width_scale", 1.0)]
    else:
        first = node.op_type == "Upsample" or ctx.opset(node) == 10
        array = ctx.need(inputs[0] if first else inputs[1])
        given = None if array is None or not array.size else [float(np.float32(s)) for s in array.reshape(-1)]
    axes = [counted(a, len(shape)) for a in attr(node, "axes", list(range(len(shape))))]
    if given is None:
        given = [target[a] / shape[a] for a in axes]
        policy = attr(node, "keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            sizes = ctx.need(inputs[2])
            choose = min if policy == "not_larger" else max
            given = [choose(int(s) / shape[a] for s, a in zip(sizes, axes))] * len(axes)
    if len(given) != len(axes) or min(given) <= 0:
        raise NotNative("scales that do not fit the input")
    scales = [1.0] * len(shape)
    for axis, scale in zip(axes, given):
        scales[axis] = scale
    return scales


def _table(mode: str, coordinates: str, nearest: str, a: float, outside: int, n: int, length: int, scale: float):
    """(input indices, weights), both [length][taps], of one axis of n cells that becomes `length`."""
    if length == n and scale == 1:
        return np.arange(n)[:, None], np.ones((n, 1), np.float32)
    if mode == "nearest":  # an index is a decision: taken in float32, as every runtime does
        at = ROUND[nearest](_coordinates(coordinates, n, length, scale, np.float32))
        return np.clip(at, 0, n - 1).astype(np.int64)[:, None], np.ones((length, 1), np.float32)
    x = _coordinates(coordinates, n, length, scale, np.float64)
    base = np.floor(x)
    t = x - base
    if mode == "cubic":
        index = base[:, None].astype(np.int64) + np.arange(-1, 3)
        d = np.abs(t[:, None] - np.arange(-1, 3))
        weight = np.where(d <= 1, ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a)
    else:
        index = base[:, None].astype(np.int64) + np.arange(2)
        weight = np.stack([1 - t, t], 1)
    if outside:
        weight = np.where((index >= 0) & (index < n), weight, 0)
        weight = weight / weight.sum(1, keepdims=True)
    return np.clip(index, 0, n - 1), weight.astype(np.float32)


def _coordinates(mode: str, n: int, length: int, scale: float, dtype) -> np.ndarray:
    """The input coordinate of every output index, computed in the given precision."""
    x, s = np.arange(length, dtype=dtype), dtype(scale)
    half, one = dtype(0.5), dtype(1)
    if mode == "asymmetric":
        return x / s
    if mode == "tf_half_pixel_for_nn":
        return (x + half) / s
    if mode == "align_corners":
        resized = s * dtype(n)
        return x * 0 if resized == 1 else x * dtype(n - 1) / (resized - one)
    if mode == "pytorch_half_pixel" and length <= 1:
        return x * 0
    at = (x + half) / s - half
    if mode == "half_pixel_symmetric":
        at += dtype(n / 2) * (one - dtype(length) / (s * dtype(n)))
    return at
