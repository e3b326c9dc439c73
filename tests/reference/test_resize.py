"""Resize and Upsample against torch's interpolation and the definition of each coordinate mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_harness import close, run_node

from infold.errors import Error

X = np.random.default_rng(0).standard_normal((2, 3, 6, 8))
T = torch.tensor(X)


def resize(x=X, scales=None, sizes=None, **attributes):
    return run_node(
        "Resize",
        x,
        None,
        None if scales is None else np.array(scales, np.float32),
        None if sizes is None else np.array(sizes, np.int64),
        **attributes,
    )


@pytest.mark.parametrize("size", [(12, 16), (9, 11), (3, 4), (6, 8), (1, 5)])
def test_interpolation_matches_torch(size):
    for mode, torch_mode in (("linear", "bilinear"), ("cubic", "bicubic")):
        close(
            resize(sizes=[2, 3, *size], mode=mode, coordinate_transformation_mode="pytorch_half_pixel")
            if min(size) > 1
            else resize(sizes=[2, 3, *size], mode=mode, coordinate_transformation_mode="half_pixel"),
            F.interpolate(T, size, mode=torch_mode),
        )
        if min(size) > 1:
            close(
                resize(sizes=[2, 3, *size], mode=mode, coordinate_transformation_mode="align_corners"),
                F.interpolate(T, size, mode=torch_mode, align_corners=True),
            )
    close(
        resize(sizes=[2, 3, *size], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        F.interpolate(T, size, mode="nearest"),
    )


def test_antialiased_reduction_matches_torch():
    close(
        resize(sizes=[2, 3, 3, 4], mode="linear", antialias=1, exclude_outside=1),
        F.interpolate(T, (3, 4), mode="bilinear", antialias=True),
    )


@pytest.mark.parametrize(
    "rounding, index",
    [("round_prefer_floor", [0, 0, 1, 1]), ("round_prefer_ceil", [0, 1, 1, 1]), ("floor", [0, 0, 1, 1]), ("ceil", [0, 1, 1, 1])],
)
def test_nearest_rounding(rounding, index):
    x = np.array([[[10.0, 20.0]]])
    y = resize(x, [1, 1, 2], mode="nearest", nearest_mode=rounding, coordinate_transformation_mode="asymmetric")
    assert y.ravel().tolist() == [10 * (i + 1) for i in index]


@pytest.mark.parametrize(
    "mode, scale, expected",
    [
        ("half_pixel", 2, [0, 0, 1, 1, 2, 2, 3, 3]),
        ("pytorch_half_pixel", 2, [0, 0, 1, 1, 2, 2, 3, 3]),
        ("asymmetric", 0.5, [0, 2]),
        ("align_corners", 2, [0, 0, 1, 1, 2, 2, 3, 3]),
        ("half_pixel_symmetric", 2, [0, 0, 1, 1, 2, 2, 3, 3]),
        ("half_pixel", 0.5, [0, 2]),
        ("align_corners", 0.5, [0, 3]),
    ],
)
def test_nearest_coordinates(mode, scale, expected):
    y = resize(np.arange(4.0).reshape(1, 1, 4), [1, 1, scale], mode="nearest", coordinate_transformation_mode=mode)
    assert y.ravel().tolist() == expected


def test_axes_and_aspect_ratio():
    assert resize(sizes=[12, 12], axes=[2, 3], mode="nearest", keep_aspect_ratio_policy="not_larger").shape == (2, 3, 9, 12)
    assert resize(sizes=[12, 12], axes=[2, 3], mode="nearest", keep_aspect_ratio_policy="not_smaller").shape == (2, 3, 12, 16)
    close(resize(sizes=[12, 16], axes=[2, 3], mode="linear"), F.interpolate(T, (12, 16), mode="bilinear"))


def test_float32_nearest_takes_the_same_cells():
    for scale in (0.6, 0.7, 1.3, 2.4, 3.1):
        wide = resize(X, [1, 1, scale, scale], mode="nearest")
        narrow = resize(X.astype(np.float32), [1, 1, scale, scale], mode="nearest")
        assert np.array_equal(wide.astype(np.float32), narrow)


def test_old_forms():
    twice = F.interpolate(T, scale_factor=2, mode="nearest")
    scales = np.array([1, 1, 2, 2], np.float32)
    close(run_node("Upsample", X, opset=1, height_scale=2.0, width_scale=2.0), twice)
    close(run_node("Upsample", X, opset=7, scales=[1.0, 1.0, 2.0, 2.0]), twice)
    close(run_node("Upsample", X, scales, opset=9), twice)
    close(run_node("Resize", X, scales, opset=10), twice)
    row, scales = np.arange(4.0).reshape(1, 1, 4), np.array([1, 1, 2], np.float32)
    for y in (run_node("Upsample", row, scales, opset=9, mode="linear"), run_node("Resize", row, scales, opset=10, mode="linear")):
        assert y.ravel().tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_negative_sizes_are_refused(mode):
    """onnx.reference multiplied them out: with 2^24 beside it for minutes."""
    with pytest.raises(Error, match="are not sizes"):
        resize(sizes=[1 << 24, -2, 3, 3], mode=mode, coordinate_transformation_mode="tf_crop_and_resize")
