"""Resize and Upsample of every opset. Interpolation is onnx.reference's; nearest is a gather per axis."""

from __future__ import annotations

import numpy as np
from onnx.reference.ops.op_resize import Resize as _Resize

_ROUND = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


class Resize(_Resize):
    """Resize from opset 10 on (opset 10: asymmetric coordinates, nearest rounds down).

    Nearest computes coordinates in float32 whatever the data's precision: an index is a decision, and every runtime
    takes it in float32.
    """

    def _run(self, x, *inputs, **attributes):
        if self.run_params["opsets"][""] < 11:
            inputs = (None, *inputs)
            attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        roi, scales, sizes = (*(value if value is not None and len(value) else None for value in inputs), None, None, None)[:3]
        mode, coordinates = attributes["mode"], attributes["coordinate_transformation_mode"]
        if scales is None and sizes is None:
            raise ValueError("Resize needs scales or sizes")
        if sizes is not None and np.any(np.less(sizes, 0)):
            raise ValueError(f"sizes {list(sizes)} are not sizes")
        if mode != "nearest" or coordinates == "tf_crop_and_resize":
            if scales is not None and sizes is None and attributes.get("axes") is None and np.all(scales == 1):
                return (x,)
            return super()._run(x, roi, scales, sizes, **attributes)
        axes = attributes.get("axes") or range(x.ndim)
        shape, ratios = _target([x.shape[axis] for axis in axes], scales, sizes, attributes["keep_aspect_ratio_policy"])
        for axis, length, ratio in zip(axes, shape, ratios):
            if length != x.shape[axis] or ratio != 1:
                index = _ROUND[attributes["nearest_mode"]](_coordinates(coordinates, x.shape[axis], length, np.float32(ratio)))
                x = x.take(np.clip(index, 0, x.shape[axis] - 1).astype(np.int64), axis=axis)
        return (x,)


class Upsample(Resize):
    """Upsample (opset 1: height_scale and width_scale; 7: the attribute scales; 9: an input): Resize of opset 10."""

    def _run(self, x, scales=None, mode=None, height_scale=None, width_scale=None):
        scales = np.asarray([1, 1, height_scale, width_scale] if scales is None else scales)
        mode = "nearest" if mode in (None, b"nearest", "nearest") else "linear"
        return super()._run(x, scales, mode=mode, coordinate_transformation_mode="asymmetric", keep_aspect_ratio_policy="stretch",
                            exclude_outside=0, extrapolation_value=0.0)


def _target(shape: list[int], scales, sizes, policy: str) -> tuple[list[int], list[float]]:
    """Return the output lengths and the scales of the resized axes."""
    if sizes is None:
        return [int(np.floor(n * np.float64(scale))) for n, scale in zip(shape, scales)], [float(scale) for scale in scales]
    ratios = [int(size) / n for n, size in zip(shape, sizes)]
    if policy in ("not_larger", "not_smaller"):
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        return [int(n * ratio + 0.5) for n in shape], [ratio] * len(shape)
    return [int(size) for size in sizes], ratios


def _coordinates(mode: str, n: int, length: int, scale: np.float32) -> np.ndarray:
    """Return the float32 input coordinate of every output index, for one axis of n cells that becomes `length`."""
    x, half = np.arange(length, dtype=np.float32), np.float32(0.5)
    if mode == "asymmetric":
        return x / scale
    if mode == "tf_half_pixel_for_nn":
        return (x + half) / scale
    if mode == "align_corners":
        resized = scale * np.float32(n)
        return x * np.float32(0) if resized == 1 else x * np.float32(n - 1) / (resized - np.float32(1))
    if mode == "pytorch_half_pixel" and length <= 1:
        return x * np.float32(0)
    coordinate = (x + half) / scale - half
    if mode == "half_pixel_symmetric":
        coordinate += np.float32(n / 2) * (1 - np.float32(length) / (scale * np.float32(n)))
    return coordinate
