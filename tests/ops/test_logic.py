"""Comparisons, logic, bits, choices and integer arithmetic: native, for every type, against the reference and onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check, session

from infold.errors import ShapeError

BOOL, INT64 = onnx.TensorProto.BOOL, onnx.TensorProto.INT64
COMPARISONS = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]


def values(net: Net, dtype, *shape: int) -> np.ndarray:
    return (net.rng.standard_normal(shape) * 3).round().astype(dtype)


def truth(net: Net, *shape: int) -> str:
    return net.feed(net.rng.integers(0, 2, shape).astype(bool))


@pytest.mark.parametrize("op", COMPARISONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint8])
def test_comparisons(op: str, dtype):
    net = Net(1, 16)
    x = net.feed(values(net, dtype, 2, 3, 4, 5))
    results = [net(op, x, net.feed(values(net, dtype, *shape))) for shape in ((2, 3, 4, 5), (3, 1, 1), (5,), ())]
    check(net, *results, types=dict.fromkeys(results, BOOL))


@pytest.mark.parametrize("op", ["Equal", "Greater", "Less", "And", "Or", "Xor"])
def test_old_broadcasting(op: str):
    net = Net(2, 6)
    logic = op in ("And", "Or", "Xor")
    dtype = bool if logic else np.int64 if op == "Equal" else np.float32
    x, y = (net.feed(values(net, dtype, *shape)) for shape in ((2, 3, 4), (3,)))
    found = session(net.model(z := net(op, x, y, broadcast=1, axis=1), types={z: BOOL}))
    ufunc = {"Equal": np.equal, "Greater": np.greater, "Less": np.less, "And": np.logical_and, "Or": np.logical_or,
             "Xor": np.logical_xor}[op]  # fmt: skip
    np.testing.assert_array_equal(found.run(None, net.feeds)[0], ufunc(net.feeds[x], net.feeds[y][:, None]))
    assert found.report.fallbacks == []


def test_logic():
    net = Net(3, 13)
    a, b, c = truth(net, 4, 5), truth(net, 5), truth(net, 4, 1)
    found = [net("And", a, b), net("Or", a, c), net("Xor", b, c), net("Not", a)]
    check(net, *found, types=dict.fromkeys(found, BOOL))


def test_bits():
    net = Net(4, 18)
    for dtype in (np.uint8, np.int32, np.uint64):
        x, y = (net.feed(net.rng.integers(0, 100, (3, 7)).astype(dtype)) for _ in range(2))
        found = [net(op, x, y) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")] + [net("BitwiseNot", x)]
        if np.dtype(dtype).kind == "u":
            few = net.feed(net.rng.integers(0, 8, (7,)).astype(dtype))
            found += [net("BitShift", x, few, direction=d) for d in ("LEFT", "RIGHT")]
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        check(net, *found, types=dict.fromkeys(found, kind))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Abs", "Neg", "Sign"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.int8, np.float64])
def test_arithmetic(op: str, dtype):
    net = Net(5, 14)
    x = net.feed(values(net, dtype, 2, 3, 4))
    y = np.where((v := values(net, dtype, 3, 1)) == 0, 3, v).astype(dtype)
    fmod = {"fmod": 1} if op == "Mod" and np.dtype(dtype).kind == "f" else {}
    z = net(op, x, *([] if op in ("Abs", "Neg", "Sign") else [net.feed(y)]), **fmod)
    check(net, z, types={z: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))})


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.float64])
def test_clip(dtype):
    net = Net(10, 13)
    x, low, high = net.feed(values(net, dtype, 3, 40) + dtype(5)), net.constant(dtype(3)), net.feed(np.array(6, dtype))
    found = [net("Clip", x, low, high), net("Clip", x, low), net("Clip", x, None, high)]
    check(net, *found, types=dict.fromkeys(found, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.int16, bool])
def test_where(dtype):
    net = Net(6, 16)
    x, y = net.feed(values(net, dtype, 2, 3, 4)), net.feed(values(net, dtype, 3, 1))
    found = [net("Where", truth(net, 2, 3, 4), x, y), net("Where", truth(net, 4), y, x), net("Where", truth(net), x, y)]
    check(net, *found, types=dict.fromkeys(found, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))


def test_where_of_images():
    net = Net(7, 16)
    image = net("Conv", net.input(2, 3, 6, 5), net.weight(9, 3, 1, 1))
    masked = net("Where", net("Less", image, net.constant(np.float32(0.1))), image, net.constant(np.float32(-2)))
    check(net, net("Conv", masked, net.weight(4, 9, 3, 3), pads=[1] * 4), masked)


def test_not_a_number():
    net = Net(8, 20)
    x = np.array([[0, np.nan, np.inf], [-np.inf, 1, -np.nan]])
    for dtype in (np.float32, np.float64):
        a = net.feed(x.astype(dtype))
        found = [net("IsNaN", a), *(net("IsInf", a, detect_negative=n, detect_positive=p) for n in (0, 1) for p in (0, 1))]
        subject = session(net.model(*found, types=dict.fromkeys(found, BOOL)))
        wanted = [np.isnan(x), np.zeros(x.shape, bool), np.isposinf(x), np.isneginf(x), np.isinf(x)]
        for one, other in zip(subject.run(None, net.feeds), wanted):
            np.testing.assert_array_equal(one, other)
        assert subject.report.fallbacks == []


def test_computed_index_out_of_range_is_refused():
    net = Net(9, 13)
    y = net("Gather", net.normal(4, 7), net.feed(np.array([0, 3, 1], np.int64)))
    subject = session(net.model(y))
    name = next(iter(net.feeds))
    for bad in (4, -5, 2**40):
        with pytest.raises(ShapeError, match="gather"):
            subject.run(None, {name: np.array([0, bad, 1])})
    np.testing.assert_array_equal(subject.run(None, {name: np.array([0, -4, 1])})[0][0], subject.run(None, net.feeds)[0][0])
