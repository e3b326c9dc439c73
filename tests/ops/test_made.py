"""ConstantOfShape, Range, EyeLike, Trilu and Tile, also where their sizes are computed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check, session


def test_constant_of_shape():
    net = Net(opset=13)
    x, shape = net.input(300, 400), net.feed(np.array([300, 400], np.int64))
    value = onnx.numpy_helper.from_array(np.array([2.5], np.float32))
    check(net, net("Add", x, net("ConstantOfShape", shape, value=value)))


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_range(dtype):
    net = Net(opset=13)
    limits = [net.feed(np.array(v, dtype)) for v in (2, 19, 3)]
    y = net("Cast", net("Range", *limits), to=1)
    subject = check(net, y)
    net.feeds[limits[1]] = np.array(40, dtype)
    np.testing.assert_array_equal(subject.run(None, net.feeds)[0], np.arange(2, 40, 3))


def test_eye_like():
    net = Net(opset=13)
    x = net.input(5, 7)
    check(net, net("Mul", x, net("EyeLike", x, k=1)))


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, 0, 2, -1, -9, 9])
def test_trilu(upper, k):
    net = Net(opset=14)
    x = net.input(2, 5, 7)
    y = net("Trilu", x, *([] if k is None else [net.constant(np.int64(k))]), upper=upper)
    expected = (np.triu if upper else np.tril)(net.feeds[x], k or 0)
    subject = session(net.model(y))
    np.testing.assert_array_equal(subject.run(None, net.feeds)[0], expected)
    assert not subject.report.fallbacks


@pytest.mark.parametrize("repeats", [(1, 2, 3), (2, 1, 1), (2, 3, 2), (1, 1, 1)])
def test_tile(repeats, like_onnxruntime):
    net = Net(opset=13)
    check(net, y := net("Tile", net.input(2, 3, 4), net.ints(*repeats)))
    like_onnxruntime(net, y)


def test_tile_of_an_image_by_a_computed_number():
    net = Net(opset=13)
    image = net("Conv", net.input(2, 3, 5, 4), net.weight(9, 3, 1, 1))
    check(net, net("Relu", net("Tile", image, net.feed(np.array([1, 1, 2, 1], np.int64)))))
