"""Gather and Scatter: one entry, many, computed indices, other data types; indices out of range."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check, session

import infold
from infold.errors import ShapeError


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("index", [2, -1, [1], [0, 2, 1, 1, -3], [[0, 1], [2, -1]]])
def test_constant_index(axis, index, like_onnxruntime):
    for dtype in (np.int64, np.int32):
        net = Net(opset=13)
        y = net("Gather", net.input(4, 5, 3), net.constant(np.array(index, dtype)), axis=axis)
        check(net, y)
        like_onnxruntime(net, y)


@pytest.mark.parametrize("index", [[1, 3, 5], [-1, -3, -5], [3, 2, 1, 0], [[0, 2, 4], [1, 3, 5]], [[5, 4], [3, 2]], [[2], [4]]])
def test_even_indices_are_a_view(index):
    """A crop, a flip, the windows that torch's unfold picks."""
    net = Net(opset=13)
    y = net("Relu", net("Gather", net("Neg", net.input(2, 6, 5)), net.constant(np.array(index, np.int64)), axis=1))
    check(net, y)
    assert "gather" not in {s.op for s in session(net.model(y)).profile(net.feeds, runs=1)}


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


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements(axis, like_onnxruntime):
    net = Net(opset=13)
    shape = [3, 5, 4]
    shape[axis] = 7
    index = net.rng.integers(-3, 3, shape)
    y = net("GatherElements", net.input(3, 5, 4), net.feed(index.astype(np.int32)), axis=axis)
    if axis >= 0:  # onnx.reference knows no others
        check(net, y)
    like_onnxruntime(net, y)


@pytest.mark.parametrize("batch", [0, 1])
def test_gather_nd(batch, like_onnxruntime):
    net = Net(opset=13)
    index = net.rng.integers(-2, 2, (2, 6, 2))
    check(net, y := net("GatherND", net.input(2, 3, 4, 5), net.feed(index), batch_dims=batch))
    like_onnxruntime(net, y)


def test_gather_nd_of_an_image():
    """Read in the layout of the convolution, without a copy."""
    net = Net(opset=13)
    image = net("Conv", net.input(2, 3, 5, 4), net.weight(9, 3, 1, 1))
    index = net.constant(np.array([[0, 8], [1, -1], [1, 2]]))
    check(net, net("GatherND", net("Relu", image), index))


@pytest.mark.parametrize("reduction", [None, "add", "mul", "max", "min"])
def test_scatter_elements(reduction, like_onnxruntime):
    net = Net(opset=18)
    index = net.rng.integers(-4, 4, (3, 6)) if reduction else np.argsort(net.rng.random((3, 6)), 0)  # else no place twice
    check(net, y := net("ScatterElements", net.input(4, 6), net.feed(index), net.input(3, 6), axis=0, reduction=reduction))
    like_onnxruntime(net, y)


@pytest.mark.parametrize("reduction", [None, "add", "max"])
def test_scatter_nd(reduction, like_onnxruntime):
    net = Net(opset=18)
    index = net.feed(np.array([[[1], [-1]], [[0], [2]]]))
    check(net, y := net("ScatterND", net.input(4, 5, 3), index, net.input(2, 2, 5, 3), reduction=reduction))
    like_onnxruntime(net, y)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8])
def test_scatter_other_types(dtype):
    net = Net(opset=18)
    data, updates = (net.feed(net.rng.integers(0, 100, (4, 3)).astype(dtype)) for _ in range(2))
    index = net.feed(net.rng.integers(0, 4, (4, 3)))
    y = net("ScatterElements", data, index, updates, reduction="add")
    found = session(net.model(y, types={y: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))})).run(None, net.feeds)[0]
    expected = net.feeds[data].copy()
    np.add.at(expected, (net.feeds[index], np.arange(3)), net.feeds[updates])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_reverse_sequence(axes, like_onnxruntime):
    net = Net(opset=10)
    time, batch = axes
    lengths = net.feed(np.array([1, 4, 2, 3]))
    check(net, y := net("ReverseSequence", net.input(4, 4, 5), lengths, time_axis=time, batch_axis=batch))
    like_onnxruntime(net, y)


@pytest.mark.parametrize("operator", ["Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"])
@pytest.mark.parametrize("bad", [5, -6, 2**62])
def test_computed_index_out_of_range_is_a_fault(operator, bad):
    net = Net(opset=13)
    x, index = net.input(5, 3), net.feed(np.array([[0, bad, 1]] if "Elements" in operator else [[0], [bad], [1]]))
    updates = {"ScatterElements": (1, 3), "ScatterND": (3, 3)}.get(operator)
    y = net(operator, x, index, *([net.input(*updates)] if updates else []))
    subject = session(net.model(y))
    with pytest.raises(ShapeError, match="outside its tensor"):
        subject.run(None, net.feeds)
    net.feeds[index] = np.zeros_like(net.feeds[index])
    subject.run(None, net.feeds)


@pytest.mark.parametrize(("operator", "index"), [("GatherElements", (6, 4)), ("GatherND", (2, 3)), ("ScatterND", (5, 3))])
def test_indices_that_do_not_fit_are_refused(operator, index):
    net = Net(opset=13)
    y = net(operator, net.input(5, 3), net.feed(np.zeros(index, np.int64)), *([net.input(5)] if "Scatter" in operator else []))
    with pytest.raises(infold.Error):
        session(net.model(y)).run(None, net.feeds)
