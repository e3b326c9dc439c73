"""Gather: one entry, many, computed indices, other data types."""

from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, check


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("index", [2, -1, [1], [0, 2, 1, 1, -3], [[0, 1], [2, -1]]])
def test_constant_index(axis, index, like_onnxruntime):
    for dtype in (np.int64, np.int32):
        net = Net(opset=13)
        y = net("Gather", net.input(4, 5, 3), net.constant(np.array(index, dtype)), axis=axis)
        check(net, y)
        like_onnxruntime(net, y)


def test_computed_index():
    net = Net(opset=13)
    index = net.feed(np.array([[3, 0, -1], [2, 2, 1]], np.int64))
    check(net, net("Gather", net.normal(4, 7), index))


def test_of_an_image():
    """The class token of a vision transformer, and chosen channels of a convolution."""
    net = Net(opset=13)
    image = net("Conv", net.input(2, 3, 5, 4), net.weight(9, 3, 1, 1))
    tokens = net("Transpose", net("Reshape", image, net.ints(2, 9, 20)), perm=[0, 2, 1])
    check(net, net("Relu", net("Gather", tokens, net.constant(np.int64(0)), axis=1)))
    net = Net(opset=13)
    image = net("Conv", net.input(2, 3, 5, 4), net.weight(9, 3, 1, 1))
    check(net, net("Gather", image, net.ints(8, 1, 1, 0), axis=1))


def test_integers():
    net = Net(opset=13)
    table = net.constant(np.arange(40, dtype=np.int64).reshape(8, 5))
    index = net.feed(np.array([7, 0, -2], np.int64))
    y = net("Cast", net("Gather", table, index), to=1)
    check(net, y, native=False)


def test_index_out_of_range_is_refused():
    net = Net(opset=13)
    y = net("Gather", net.input(4, 5), net.ints(4))
    with pytest.raises(Exception, match=r"(?i)gather|index"):
        check(net, y)
