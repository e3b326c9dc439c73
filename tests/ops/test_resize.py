"""Resize and Upsample: modes, coordinates, rounding, scales and sizes, images and rows, every opset."""

from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, check

COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]


def resize(net: Net, x: str, scales=None, sizes=None, **attributes) -> str:
    scales = net.constant(np.array(scales, np.float32)) if scales is not None else None
    if net.opset == 10:
        return net("Resize", x, scales, **attributes)
    roi = net.constant(np.zeros(0, np.float32)) if net.opset < 13 else None
    if net.opset < 13 and scales is None:
        scales = net.constant(np.zeros(0, np.float32))
    return net("Resize", x, roi, scales, *([net.ints(*sizes)] if sizes is not None else []), **attributes)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_scales_and_sizes(mode, coordinates, like_onnxruntime):
    for scales, sizes in (
        ([1, 1, 2, 2], None),
        ([1, 1, 0.6, 0.6], None),
        ([1, 1, 3, 0.5], None),
        ([1, 1, 1, 1.7], None),
        (None, [2, 3, 14, 9]),
        (None, [2, 3, 4, 16]),
        (None, [2, 3, 1, 1]),
        (None, [2, 3, 7, 8]),
    ):
        net = Net(opset=19)
        y = resize(net, net.input(2, 3, 7, 8), scales, sizes, mode=mode, coordinate_transformation_mode=coordinates)
        # onnxruntime rounds the output length to align corners, and lacks half_pixel_symmetric; ONNX's reference takes
        # the one pixel of pytorch_half_pixel from -0.5 instead of 0
        if coordinates != "half_pixel_symmetric" and not (coordinates == "align_corners" and scales):
            like_onnxruntime(net, y)
        if not (coordinates == "pytorch_half_pixel" and mode == "cubic" and sizes == [2, 3, 1, 1]):
            check(net, y)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", [*COORDINATES, "tf_half_pixel_for_nn"])
def test_nearest_rounding(rounding, coordinates, like_onnxruntime):
    for sizes in ([1, 2, 15, 5], [1, 2, 3, 20], [1, 2, 13, 30]):
        net = Net(opset=11 if coordinates == "tf_half_pixel_for_nn" else 19)
        y = resize(
            net,
            net.input(1, 2, 10, 10),
            sizes=sizes,
            mode="nearest",
            nearest_mode=rounding,
            coordinate_transformation_mode=coordinates,
        )
        check(net, y)
        if coordinates != "half_pixel_symmetric":
            like_onnxruntime(net, y)


def test_cubic_coefficient_and_excluded_border(like_onnxruntime):
    for a in (-0.5, -0.75):
        for outside in (0, 1):
            net = Net(opset=13)
            y = resize(
                net, net.input(1, 2, 6, 5), [1, 1, 1.8, 2.2], mode="cubic", cubic_coeff_a=a, exclude_outside=outside
            )
            check(net, y)
            like_onnxruntime(net, y)


@pytest.mark.parametrize("opset", [10, 11, 13, 18, 22])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_every_opset(mode, opset, like_onnxruntime):
    net = Net(opset=opset)
    y = resize(net, net.input(1, 5, 6, 7), [1, 1, 2, 2.5], mode=mode)
    check(net, y)
    like_onnxruntime(net, y)


@pytest.mark.parametrize("opset", [1, 7, 8, 9])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode, opset):
    net = Net(opset=opset)
    x = net.input(1, 5, 6, 7)
    if opset == 1:
        y = net("Upsample", x, mode="bilinear" if mode == "linear" else mode, height_scale=2.0, width_scale=3.0)
    elif opset < 9:
        y = net("Upsample", x, mode=mode, scales=[1.0, 1.0, 2.0, 3.0])
    else:
        y = net("Upsample", x, net.constant(np.array([1, 1, 2, 3], np.float32)), mode=mode)
    check(net, y)


def test_axes_and_aspect_ratio():
    for policy in ("stretch", "not_larger", "not_smaller"):
        net = Net(opset=18)
        check(
            net,
            net(
                "Resize",
                net.input(1, 2, 8, 6),
                None,
                None,
                net.ints(12, 13),
                axes=[2, 3],
                keep_aspect_ratio_policy=policy,
                mode="linear",
            ),
        )
    net = Net(opset=18)
    scales = net.constant(np.array([1.5, 0.7], np.float32))
    check(net, net("Resize", net.input(1, 2, 8, 6), None, scales, axes=[3, 2], mode="linear"))


def test_in_a_network():
    """A feature pyramid: upsampled to the size of another map, which is known from its shape only."""
    net = Net(opset=13)
    x = net.input(2, 3, 16, 18)
    fine = net("Conv", x, net.weight(21, 3, 3, 3), pads=[1, 1, 1, 1])
    coarse = net("Conv", fine, net.weight(21, 21, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    height = net("Slice", net("Shape", fine), net.ints(2), net.ints(4), net.ints(0))
    sizes = net("Concat", net("Slice", net("Shape", coarse), net.ints(0), net.ints(2), net.ints(0)), height, axis=0)
    up = net(
        "Resize",
        coarse,
        None,
        None,
        sizes,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    both = net("Concat", up, fine, axis=1)
    check(net, net("Conv", both, net.weight(8, 42, 3, 3), pads=[1, 1, 1, 1]))


@pytest.mark.parametrize("shape,scales", [((2, 3, 9), [1, 1, 2.5]), ((1, 6, 7, 5), [1, 2, 2, 1])])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_one_dimension_and_channels_last(shape, scales, mode):
    net = Net(opset=13)
    check(net, resize(net, net.input(*shape), scales, mode=mode))


@pytest.mark.parametrize(
    "attributes",
    [{"antialias": 1, "mode": "linear"}, {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"}],
)
def test_what_runs_in_the_fallback(attributes):
    net = Net(opset=19)
    roi = net.constant(np.array([0, 0, 0.1, 0.2, 1, 1, 0.9, 0.8], np.float32))
    y = net("Resize", net.input(1, 2, 9, 8), roi, net.constant(np.array([1, 1, 0.6, 0.7], np.float32)), **attributes)
    check(net, y, native=False)


def test_sizes_known_only_in_the_run():
    net = Net(opset=13)
    sizes = net.feed(np.array([1, 2, 11, 12], np.int64))
    check(net, net("Relu", net("Resize", net.input(1, 2, 5, 6), None, None, sizes, mode="linear")), native=False)
