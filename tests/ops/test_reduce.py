"""The Reduce family and global pooling: axes as attribute and input, every opset's spelling, images and rows."""

from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, check

REDUCE = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
]


def reduce(net: Net, kind: str, x: str, axes, **attributes) -> str:
    """The operator as its opset spells the axes."""
    if kind == "ReduceLogSum":
        x = net("Abs", x)
    if kind == "ReduceProd":  # near 1: products of many numbers would be 0 or infinite
        x = net(
            "Exp", net("Mul", x, net.constant(np.full(1, 0.05, np.float32)), broadcast=1 if net.opset < 7 else None)
        )
    by_input = net.opset >= (13 if kind == "ReduceSum" else 18)
    if axes is None or not by_input:
        return net(kind, x, **attributes, axes=axes)
    return net(kind, x, net.ints(*axes), **attributes)


@pytest.mark.parametrize("opset", [1, 11, 12, 13, 17, 18, 22])
@pytest.mark.parametrize("kind", REDUCE)
def test_every_opset(kind, opset):
    for axes, keepdims in (([1], 1), ([0, 2], 0), ([2, 3], 1), (None, 1)):
        net = Net(opset=opset)
        check(net, reduce(net, kind, net.input(3, 4, 5, 6), axes, keepdims=keepdims), trivial=axes is None)


@pytest.mark.parametrize("kind", REDUCE)
def test_after_a_convolution(kind, like_onnxruntime):
    """The input is an NHWC image in memory: pixels, channels, both, one of two spatial dimensions."""
    for axes in ([2, 3], [1], [1, 2, 3], [2], [0, 3], [0, 1, 2], [-1], [0, 2, 3]):
        for keepdims in (0, 1):
            net = Net(2)
            image = net("Conv", net.input(3, 5, 12, 9), net.weight(19, 5, 3, 3))
            y = reduce(net, kind, image, axes, keepdims=keepdims)
            check(net, y)
            like_onnxruntime(net, y, tolerance=2e-5)


@pytest.mark.parametrize("shape", [(7,), (5, 4), (2, 3, 4, 5, 6), (1, 1, 1), (3, 1, 4)])
def test_ranks(shape):
    for axis in range(len(shape)):
        net = Net()
        check(net, net("ReduceMean", net.input(*shape), net.ints(axis - len(shape)), keepdims=axis % 2), trivial=True)


def test_no_axes():
    for noop in (0, 1):
        for kind in ("ReduceSum", "ReduceMax", "ReduceMean"):
            net = Net()
            check(net, net(kind, net.input(3, 4, 5), net.ints(), noop_with_empty_axes=noop), trivial=True)
            net = Net()
            check(net, net(kind, net.input(3, 4, 5), noop_with_empty_axes=noop), trivial=True)


def test_axes_from_the_shape():
    """Axes that are computed, but from shapes alone, are constants."""
    net = Net(opset=18)
    x = net.input(2, 3, 4, 5)
    rank = net("Size", net("Shape", x))
    axes = net("Range", net.constant(np.int64(2)), rank, net.constant(np.int64(1)))
    check(net, net("ReduceMean", x, axes))


def test_axes_known_only_in_the_run():
    net = Net(opset=18)
    x, axes = net.input(2, 3, 4, 5), net.feed(np.array([1, 3], np.int64))
    check(net, net("Relu", net("ReduceMax", x, axes)), native=False)


@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("spatial", [(7,), (7, 7), (9, 14), (3, 4, 5), (1, 1)])
def test_global_pooling(kind, spatial, like_onnxruntime):
    net = Net(1, opset=21)
    y = net(kind, net.input(2, 35, *spatial))
    like_onnxruntime(net, y)
    check(net, y)
    net = Net(1)
    x = net.input(2, 3, *spatial)
    check(net, net(kind, net("Relu", net("Conv", x, net.weight(21, 3, *[1] * len(spatial))))))


def test_squeeze_and_excitation():
    net = Net(3)
    x = net("Conv", net.input(2, 8, 10, 10), net.weight(24, 8, 1, 1))
    pooled = net("GlobalAveragePool", x)
    small = net("Relu", net("Conv", pooled, net.weight(6, 24, 1, 1)))
    check(net, net("Mul", x, net("Sigmoid", net("Conv", small, net.weight(24, 6, 1, 1)))))
