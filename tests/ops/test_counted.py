"""Results as long as the data say: NonZero, Compress, NonMaxSuppression, and what reads them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check, session

import infold

INT64 = onnx.TensorProto.INT64


@pytest.mark.parametrize("dtype", [np.float32, np.bool_, np.int32, np.uint8])
def test_nonzero(dtype):
    net = Net(opset=13)
    y = net("NonZero", net.feed((net.rng.random((4, 1, 5)) * 3 - 1).astype(dtype)))
    check(net, y, types={y: INT64})


def test_one_plan_for_many_counts():
    """Every class of a detector picks its boxes for itself: all count in one plan, all that reads them runs in the next."""
    net = Net(opset=13)
    x = net.input(6, 40)
    parts = []
    for i in range(6):
        row = net("Gather", x, net.constant(np.int64(i)), axis=0)
        chosen = net("Squeeze", net("NonZero", net("Greater", row, net.constant(np.float32(0.2)))), net.ints(0))
        parts.append(net("Sigmoid", net("Gather", row, chosen)))
    subject = check(net, net("Concat", *parts, axis=0))
    for _ in range(3):
        net.feeds[x] = np.where(net.feeds[x] > 0.2, net.feeds[x] * 2, -1).astype(np.float32)
        subject.run(None, net.feeds)
    assert subject.report.plans == 3  # one more for the run on NaN, which finds nothing


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_compress(axis, like_onnxruntime):
    net = Net(opset=11)
    condition = net.feed(np.array([False, True, True, False, True]))
    check(net, y := net("Compress", net.input(6, 7), condition, axis=axis))
    like_onnxruntime(net, y)


def test_nothing_found():
    net = Net(opset=13)
    x = net.input(5, 4)
    index = net("Transpose", net("NonZero", net("Greater", x, net.constant(np.float32(100)))), perm=[1, 0])
    y = net("Relu", net("GatherND", x, index))
    assert session(net.model(y)).run(None, net.feeds)[0].shape == (0,)


def boxes(net: Net, count: int) -> tuple[str, str]:
    corner, size = net.rng.random((2, count, 2)), net.rng.random((2, count, 2)) * 0.6
    scores = net.rng.random((2, 3, count)).astype(np.float32)
    return net.feed(np.concatenate([corner, corner + size], 2).astype(np.float32)), net.feed(scores)


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("limit", [3, 1000])
def test_non_max_suppression(limit, center, like_onnxruntime):
    net = Net(opset=11)
    numbers = net.ints(limit), *(net.constant(np.array([v], np.float32)) for v in (0.4, 0.3))
    y = net("NonMaxSuppression", *boxes(net, 30), *numbers, center_point_box=center)
    assert not session(net.model(y, types={y: INT64})).report.fallbacks
    like_onnxruntime(net, y, types={y: INT64})


def test_thresholds_that_are_computed():
    net = Net(opset=11)
    numbers = [net.feed(np.array([v], t)) for v, t in ((5, np.int64), (0.4, np.float32), (0.3, np.float32))]
    y = net("NonMaxSuppression", *boxes(net, 30), *numbers)
    computed = session(net.model(y, types={y: INT64}))
    found = computed.run(None, net.feeds)[0]
    assert not computed.report.fallbacks and len(found) > 3
    other = Net(opset=11)
    y = other("NonMaxSuppression", *boxes(other, 30), *(other.constant(net.feeds[n]) for n in numbers))
    np.testing.assert_array_equal(found, session(other.model(y, types={y: INT64})).run(None, other.feeds)[0])


def test_a_count_behind_a_node_that_waits():
    """What waits for a value takes those with it that were to be counted."""
    net = Net(opset=13)
    x, axis = net.input(4, 6), net.feed(np.array([1], np.int64))
    total = net("ReduceSum", x, net("Abs", axis), keepdims=1)
    y = net("NonZero", net("Greater", x, total))
    check(net, y, types={y: INT64}, native=False)


@pytest.mark.parametrize("operator", ["NonMaxSuppression", "Compress", "Einsum", "OneHot", "CumSum", "Hardmax"])
def test_contradictions_are_typed_errors(operator):
    """Inputs of wrong ranks, and attributes that are missing or out of range."""
    net = Net(opset=13)
    flat = net.feed(np.ones(3, np.float32))
    inputs = {"NonMaxSuppression": (flat, flat), "Compress": (flat, net.feed(np.ones((2, 2), bool))), "Einsum": (flat, flat),
              "OneHot": (flat, net.ints(), flat), "CumSum": (flat, net.ints(7)), "Hardmax": (flat,)}[operator]
    attributes = {"Einsum": {"equation": "ij,->k"}, "Hardmax": {"axis": 9}, "Compress": {"axis": 5}}.get(operator, {})
    y = net(operator, *inputs, **attributes)
    with pytest.raises(infold.Error):
        session(net.model(y)).run(None, net.feeds)
