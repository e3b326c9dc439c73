"""TopK, ArgMax and ArgMin of every opset form, along every axis, with equal elements and other data types."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check, session

INT64 = onnx.TensorProto.INT64


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_k(axis, largest, like_onnxruntime):
    net = Net(opset=11)
    values, places = net("TopK", net.input(5, 7, 6), net.ints(3), axis=axis, largest=largest, outputs=2)
    check(net, values, places, types={places: INT64})
    like_onnxruntime(net, values)


def test_top_k_of_old_opsets(like_onnxruntime):
    net = Net(opset=9)
    check(net, net("TopK", net.input(4, 9), k=4, outputs=2)[0])
    net = Net(opset=10)
    values, _ = net("TopK", net.input(4, 9), net.ints(2), outputs=2)
    check(net, values)
    like_onnxruntime(net, values)


def test_top_k_whose_size_is_computed():
    """As detectors limit it: min(1000, anchors), which the run knows first."""
    net = Net(opset=13)
    count = net.feed(np.array([3], np.int64))
    values, _ = net("TopK", net.input(4, 9), net("Min", count, net.ints(5)), outputs=2)
    check(net, net("Relu", values), native=False)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8, np.int64, np.float16])
def test_top_k_of_other_types(dtype):
    net = Net(opset=11)
    x = net.feed(net.rng.integers(0, 30, (4, 50)).astype(dtype))
    values, places = net("TopK", x, net.ints(5), outputs=2)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    subject = session(net.model(values, places, types={values: kind, places: INT64}))
    found = subject.run(None, net.feeds)
    expected = np.argsort(-net.feeds[x].astype(np.int64), axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(found[1], expected)
    np.testing.assert_array_equal(found[0], np.take_along_axis(net.feeds[x], expected, 1))
    assert not subject.report.fallbacks


@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("axis", [0, 2, -1])
@pytest.mark.parametrize("last", [0, 1])
def test_extreme(operator, axis, last, like_onnxruntime):
    net = Net(opset=13)
    x = net.feed(net.rng.integers(0, 4, (6, 5, 7)).astype(np.float32))
    y = net(operator, x, axis=axis, keepdims=last, select_last_index=last)
    check(net, y, types={y: INT64})
    like_onnxruntime(net, y, types={y: INT64})


def test_classes_of_pixels():
    """The end of a segmentation network: ArgMax over the channels of an image."""
    net = Net(opset=13)
    logits = net("Conv", net.input(2, 3, 9, 8), net.weight(21, 3, 3, 3))
    y = net("ArgMax", logits, axis=1)
    check(net, y, types={y: INT64})
