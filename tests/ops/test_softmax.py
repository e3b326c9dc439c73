"""Softmax and LogSoftmax along every axis, with the flattening of the old opsets."""

from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, check


@pytest.mark.parametrize("opset", [1, 11, 12, 13, 22])
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_axes(kind, opset, like_onnxruntime):
    for shape in ((3, 10), (2, 5, 7), (2, 3, 4, 5), (2, 5, 1, 1)):
        for axis in (None, *range(len(shape)), *([-1, -2] if opset >= 11 else [])):
            first = (1 if opset < 13 else -1) if axis is None else axis
            if np.prod(shape[first:] if opset < 13 else shape[first]) == 1:
                continue  # one class: its logarithm is 0 everywhere
            net = Net(opset=opset)
            y = net(kind, net.input(*shape), axis=axis)
            check(net, y, trivial=True)
            like_onnxruntime(net, y)


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_after_a_convolution(axis, opset):
    """Channels of an NHWC image are contiguous; its rows and columns are not."""
    net = Net(opset=opset)
    y = net("Softmax", net("Conv", net.input(2, 3, 9, 8), net.weight(21, 3, 3, 3)), axis=axis)
    check(net, y)
    net = Net(opset=opset)
    y = net("Softmax", net("Conv", net.input(2, 3, 9, 8), net.weight(21, 3, 3, 3)), axis=axis)
    check(net, net("Conv", y, net.weight(4, 21, 3, 3)))


def test_long_rows_and_one_class():
    net = Net()
    check(net, net("Softmax", net.input(3, 6625)))
    net = Net()
    check(net, net("Softmax", net.input(4, 1)), trivial=True)


def test_transposed_rows():
    net = Net()
    check(net, net("Softmax", net("Transpose", net.input(5, 6, 7), perm=[2, 0, 1])))


def test_detector_head():
    """Reshape to (batch, 4, 16, anchors), softmax over the 16, and a product with them."""
    net = Net()
    x = net("Conv", net.input(1, 8, 6, 6), net.weight(64, 8, 1, 1))
    split = net("Transpose", net("Reshape", x, net.ints(1, 4, 16, 36)), perm=[0, 2, 1, 3])
    check(net, net("Conv", net("Softmax", split, axis=1), net.weight(1, 16, 1, 1)))


def test_attention():
    net = Net()
    q, k, v = (net.input(2, 3, 17, 8) for _ in range(3))
    scores = net("Mul", net("MatMul", q, net("Transpose", k, perm=[0, 1, 3, 2])), net.constant(np.float32(0.35355338)))
    check(net, net("MatMul", net("Softmax", scores), v))
