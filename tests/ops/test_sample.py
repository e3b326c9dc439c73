"""RoiAlign and GridSample in every form of theirs that is native."""

from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, check, session

import infold


def regions(net: Net) -> tuple[str, str]:
    corner = net.rng.random((7, 2)) * 8
    rois = net.feed(np.concatenate([corner, corner + net.rng.random((7, 2)) * 6], 1).astype(np.float32))
    return rois, net.feed(net.rng.integers(0, 2, 7))


@pytest.mark.parametrize(("opset", "half"), [(10, None), (16, "half_pixel"), (16, "output_half_pixel")])
@pytest.mark.parametrize("sampling", [0, 2])
def test_roi_align(opset, half, sampling, like_onnxruntime):
    net = Net(opset=opset)
    image = net("Conv", net.input(2, 3, 12, 14), net.weight(9, 3, 3, 3))
    y = net("RoiAlign", image, *regions(net), output_height=3, output_width=2, sampling_ratio=sampling, spatial_scale=0.7,
            coordinate_transformation_mode=half)
    assert not session(net.model(y)).report.fallbacks
    like_onnxruntime(net, y)


def test_endless_sampling_is_refused():
    net = Net(opset=16)
    y = net("RoiAlign", net.input(2, 3, 9, 9), *regions(net), output_height=2, output_width=2, sampling_ratio=2**31)
    with pytest.raises(infold.InvalidModelError, match=r"RoiAlign.*2147483648 points"):
        session(net.model(y))


@pytest.mark.parametrize("sampling", [0, 2])
def test_maximum_of_weighted_neighbours(sampling, like_onnxruntime):
    net = Net(opset=16)
    y = net("RoiAlign", net.input(2, 5, 9, 9), *regions(net), output_height=2, output_width=3, mode="max", sampling_ratio=sampling)
    assert not session(net.model(y)).report.fallbacks
    like_onnxruntime(net, y)


def test_maximum_of_pixels(like_onnxruntime):
    net = Net(opset=13)
    corner = net.rng.random((9, 2)) * 20
    rois = np.concatenate([net.rng.integers(0, 2, (9, 1)), corner, corner + net.rng.random((9, 2)) * 40], 1)
    image = net("Conv", net.input(2, 3, 18, 20), net.weight(5, 3, 3, 3))
    y = net("MaxRoiPool", image, net.feed(rois.astype(np.float32)), pooled_shape=[3, 2], spatial_scale=0.3)
    assert not session(net.model(y)).report.fallbacks
    like_onnxruntime(net, y)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_in_volumes(mode, padding, like_onnxruntime):
    net = Net(opset=20)
    grid = net.feed(net.rng.uniform(-1.3, 1.3, (2, 3, 4, 6, 3)).astype(np.float32))
    y = net("GridSample", net.input(2, 5, 4, 7, 9), grid, mode=mode, padding_mode=padding)
    assert not session(net.model(y)).report.fallbacks
    like_onnxruntime(net, y)


@pytest.mark.parametrize("opset", [16, 20])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sample(opset, mode, padding, corners, like_onnxruntime):
    net = Net(opset=opset)
    grid = net.feed(net.rng.uniform(-1.3, 1.3, (2, 4, 6, 2)).astype(np.float32))
    name = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode) if opset == 16 else mode
    y = net("GridSample", net.input(2, 5, 7, 9), grid, mode=name, padding_mode=padding, align_corners=corners)
    assert not session(net.model(y)).report.fallbacks
    like_onnxruntime(net, y)
    if mode != "cubic":  # onnx.reference repeats borders under cubic weights in a way of its own
        check(net, y)
