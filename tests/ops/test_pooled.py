"""Rarer pooling: powers, indices of maxima and their way back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check, session

WINDOWS = [
    ((9, 10), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ((9, 10), {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]}),
    ((9, 10), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((9, 10), {"kernel_shape": [2, 3], "strides": [3, 3], "ceil_mode": 1, "pads": [0, 1, 0, 0]}),
    ((2, 6), {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}),
    ((12,), {"kernel_shape": [3], "dilations": [2]}),
    ((5, 6, 7), {"kernel_shape": [2, 1, 3], "strides": [2, 2, 2]}),
]  # fmt: skip


@pytest.mark.parametrize(("size", "attributes"), WINDOWS)
@pytest.mark.parametrize("order", [0, 1])
def test_indices_of_maxima(size, attributes, order):
    net = Net(opset=12)
    x = net("Relu", net.input(2, 3, *size))
    y, index = net("MaxPool", x, outputs=2, storage_order=order, **attributes)
    check(net, y, index, types={index: onnx.TensorProto.INT64})


@pytest.mark.parametrize(("size", "attributes"), [*WINDOWS, ((3, 5), {"kernel_shape": [2, 2], "pads": [0, 1, 0, 3]})])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_powers(size, attributes, p, like_onnxruntime):
    net = Net(opset=18)
    y = net("LpPool", net.input(2, 3, *size), p=p, **attributes)
    check(net, net("Neg", y), y, tolerance=1e-5)
    if len(size) < 3 and "auto_pad" not in attributes and max(attributes.get("pads", [0])) < 2:
        like_onnxruntime(net, y)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_powers_of_everything(p):
    net = Net(opset=11)
    check(net, net("GlobalLpPool", net.input(2, 5, 4, 3), p=p), tolerance=1e-5)


def test_there_and_back(like_onnxruntime):
    """As SegNet does it (arXiv 1511.00561)."""
    net = Net(opset=11)
    x = net("Conv", net.input(1, 3, 12, 8), net.weight(5, 3, 3, 3))
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    y, index = net("MaxPool", x, outputs=2, **window)
    y = net("MaxUnpool", net("Conv", y, net.weight(5, 5, 1, 1)), index, **window)
    check(net, y)
    like_onnxruntime(net, y)


def test_indices_that_lie():
    """A computed index that is no place in the result ends the run with a typed error."""
    import infold

    net = Net(opset=11)
    index = net.feed(np.array([[[[0, 17], [5, 900]]]], np.int64))
    subject = session(net.model(net("MaxUnpool", net.input(1, 1, 2, 2), index, kernel_shape=[2, 2], strides=[2, 2])))
    with pytest.raises(infold.Error, match="outside its tensor"):
        subject.run(None, net.feeds)
