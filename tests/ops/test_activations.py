"""Unary functions in any layout, and their parameters in every opset."""
from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check, session

from infold.ops.activations import DOUBLE, PLAIN
from infold.reference import run_float64

POSITIVE = {"Log", "Sqrt", "Reciprocal"}


@pytest.mark.parametrize("layout", ["rows", "image", "transposed", "sliced"])
@pytest.mark.parametrize("op", PLAIN)
def test_functions_of_strided_values(op: str, layout: str):
    net = Net(1)
    x = net("Add", net("Abs", net.input(2, 21, 7, 6)), net.constant(np.float32(0.2))) if op in POSITIVE else net.input(2, 21, 7, 6)
    if layout == "image":
        pool = net("MaxPool", x, kernel_shape=[2, 2])
        x = pool
    elif layout == "transposed":
        x = net("Transpose", x, perm=[3, 1, 0, 2])
    elif layout == "sliced":
        x = net("Slice", x, net.ints(1, -1), net.ints(20, -(1 << 40)), net.ints(1, 3), net.ints(2, -1))
    check(net, net(op, x))


CASES = [
    ("LeakyRelu", 1, dict(alpha=0.3)), ("LeakyRelu", 6, {}), ("LeakyRelu", 16, dict(alpha=-0.5)), ("Elu", 6, dict(alpha=2.0)),
    ("Elu", 1, {}), ("Selu", 1, dict(alpha=1.5, gamma=1.2)), ("Selu", 6, {}), ("Selu", 6, dict(alpha=1.1, gamma=0.9)),
    ("Celu", 12, dict(alpha=0.4)),
    ("HardSigmoid", 1, {}), ("HardSigmoid", 6, dict(alpha=0.1, beta=0.6)), ("ThresholdedRelu", 10, dict(alpha=0.5)),
    ("ThresholdedRelu", 22, {}), ("Clip", 6, dict(min=-0.4, max=0.6)), ("Clip", 6, dict(max=0.2)), ("Clip", 6, dict(min=0.1)),
    ("Gelu", 20, {}), ("Gelu", 20, dict(approximate="tanh")), ("Swish", 24, {}), ("Swish", 24, dict(alpha=0.7)), ("Relu", 1, {}),
    ("Sigmoid", 1, {}), ("Mish", 18, {}), ("HardSwish", 14, {}), ("Softplus", 1, {}), ("Neg", 1, {}), ("Exp", 1, {}),
    ("Tanh", 6, {}),
]


@pytest.mark.parametrize("op, opset, attributes", CASES)
def test_parameters(op: str, opset: int, attributes: dict):
    net = Net(2, opset)
    check(net, net(op, net.input(3, 70), **attributes))


@pytest.mark.parametrize("opset", [11, 12, 13])
def test_clip_with_bounds_from_inputs(opset: int):
    net = Net(3, opset)
    x, low, high = net.input(3, 50), net.constant(np.float32(-0.2)), net.constant(np.float32(0.7))
    check(net, net("Clip", x, low, high), net("Clip", x, None, high), net("Clip", x, low), net("Clip", x, high, low), trivial=True)


def test_clip_with_computed_bounds():
    net = Net(4)
    x = net.input(3, 50)
    low = net("ReduceMin", net("Mul", x, net.constant(np.float32(0.3))), keepdims=0)
    check(net, net("Clip", x, low), native=False)


@pytest.mark.parametrize("op", ["Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish"])
def test_nan_goes_through(op: str):
    net = Net(5)
    x = net.input(1, 3, 4, 4)
    y = net(op, x, *([net.constant(np.float32(-1)), net.constant(np.float32(1))] if op == "Clip" else []))
    net.feeds[x][0, 1, 2, 3] = np.nan
    found = session(net.model(y)).run(None, net.feeds)[0]
    assert np.isnan(found[0, 1, 2, 3]) and np.isnan(found).sum() == 1


@pytest.mark.parametrize("op", DOUBLE)
def test_float64(op: str):
    net = Net(2, 13)
    x = net.feed(net.rng.uniform(0.1, 0.9, (3, 4, 5)))
    y = net("Mul", net(op, x), net("Pow", x, net.feed(net.rng.uniform(-2, 2, (4, 1)))))
    model = net.model(y, types={y: onnx.TensorProto.DOUBLE})
    expected = run_float64(model, net.feeds)[y]
    (found,) = session(model, native_only=True).run(None, net.feeds)
    assert found.dtype == np.float64 and (expected.any() or op == "Floor")
    np.testing.assert_allclose(found, expected, rtol=1e-13)
