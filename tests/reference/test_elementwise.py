"""Activations keep full precision; old broadcasting and old forms mean what their opset says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_harness import close, run_node

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4, 5)) * 3
T = torch.tensor(X)


@pytest.mark.parametrize(
    "op_type, attributes, expected",
    [
        ("Erf", {}, torch.erf(T)),
        ("Sigmoid", {}, torch.sigmoid(T)),
        ("Tanh", {}, torch.tanh(T)),
        ("Exp", {}, torch.exp(T)),
        ("Gelu", {}, F.gelu(T)),
        ("Gelu", {"approximate": "tanh"}, F.gelu(T, approximate="tanh")),
        ("HardSwish", {}, F.hardswish(T)),
        ("Mish", {}, F.mish(T)),
        ("Softplus", {}, F.softplus(T)),
        ("Elu", {"alpha": 0.5}, F.elu(T, 0.5)),
        ("LeakyRelu", {"alpha": 0.25}, F.leaky_relu(T, 0.25)),
        ("HardSigmoid", {"alpha": 0.25, "beta": 0.5}, (T / 4 + 0.5).clamp(0, 1)),
        ("Swish", {}, F.silu(T)),
        ("Selu", {}, F.selu(T)),
        ("Celu", {"alpha": 0.5}, F.celu(T, 0.5)),
        ("Softsign", {}, F.softsign(T)),
        ("Softmax", {"axis": 1}, F.softmax(T, 1)),
        ("LogSoftmax", {"axis": -1}, F.log_softmax(T, -1)),
        ("ReduceMean", {}, T.mean(dim=(0, 1, 2, 3), keepdim=True)),
        ("ReduceLogSumExp", {}, T.flatten().logsumexp(0).reshape(1, 1, 1, 1)),
    ],
)
def test_float64_stays_float64(op_type, attributes, expected):
    rounded = op_type in ("HardSwish", "Selu") or attributes == {"approximate": "tanh"}
    tolerance = 1e-6 if rounded else 1e-13  # ONNX gives these operators' constants in float32
    close(run_node(op_type, X, **attributes), expected, tolerance)


def test_scalar_and_empty_erf():
    assert run_node("Erf", np.array(0.5)) == math.erf(0.5)
    assert run_node("Erf", np.empty((0, 3))).shape == (0, 3)
    assert run_node("Erf", np.array([0.5], np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    "shape, axis, lined_up",
    [
        ((3, 4), 1, (3, 4, 1)),
        ((3,), 1, (3, 1, 1)),
        ((5,), None, (5,)),
        ((2,), 0, (2, 1, 1, 1)),
        ((4, 5), None, (4, 5)),
        ((1, 4), -3, (1, 4, 1)),
        ((), None, ()),
    ],
)
def test_explicit_broadcasting_before_opset_7(shape, axis, lined_up):
    y = RNG.standard_normal(shape) + 3
    attributes = {"broadcast": 1} | ({} if axis is None else {"axis": axis})
    for op_type, function in (("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", np.divide)):
        close(run_node(op_type, X, y, opset=6, **attributes), function(X, y.reshape(lined_up)))
    assert np.array_equal(run_node("Greater", X, y, opset=1, **attributes), y.reshape(lined_up) < X)


@pytest.mark.parametrize("op_type, function", [("Softmax", F.softmax), ("LogSoftmax", F.log_softmax)])
@pytest.mark.parametrize("axis", [None, 1, 2, -1, 0])
def test_softmax_before_opset_13_is_over_all_later_dimensions(op_type, function, axis):
    attributes = {} if axis is None else {"axis": axis}
    first = 1 if axis is None else axis % 4
    expected = function(T.reshape(math.prod(X.shape[:first]), -1), dim=1).reshape(X.shape)
    for opset in (1, 11, 12):
        close(run_node(op_type, X, opset=opset, **attributes), expected)
    assert run_node("Hardmax", X, opset=11, axis=1).sum(axis=(1, 2, 3)).tolist() == [1, 1]


def test_softmax_prepared_once_runs_many_times():
    import onnx
    import onnx_ir as ir

    from infold.reference import NodeRunner

    runner = NodeRunner(ir.from_proto(onnx.helper.make_node("Softmax", ["x"], ["y"], axis=2)), {"": 11})
    for shape in ((2, 3, 4, 5), (2, 2, 3)):
        x = RNG.standard_normal(shape)
        close(runner.run([x])[0], F.softmax(torch.tensor(x).flatten(2), -1).reshape(shape))


@pytest.mark.parametrize(
    "opset, attributes, inputs",
    [
        (1, {"is_test": 1}, ()),
        (6, {"is_test": 1, "ratio": 0.9}, ()),
        (7, {"ratio": 0.9}, ()),
        (12, {}, (np.float64(0.9),)),
        (13, {}, (np.float64(0.9), np.array(False))),
    ],
)
def test_dropout_is_the_identity_in_inference(opset, attributes, inputs):
    y, mask = run_node("Dropout", X, *map(np.asarray, inputs), opset=opset, outputs=2, **attributes)
    assert y is X and mask.all() and mask.shape == X.shape


def test_dropout_in_training_scales_what_it_keeps():
    y, mask = run_node("Dropout", X, np.array(0.5), np.array(True), outputs=2, seed=3)
    assert 0.2 < mask.mean() < 0.8 and np.array_equal(y, np.where(mask, X * 2, 0))


def test_reshape_of_every_opset():
    assert run_node("Reshape", X, opset=1, shape=[0, -1]).shape == (2, 60)
    assert run_node("Reshape", X, np.array([0, -1]), opset=5).shape == (2, 60)
    assert run_node("Reshape", np.empty((0, 3)), np.array([3, 0]), allowzero=1).shape == (3, 0)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(mode):
    width = [(0, 0), (1, 0), (2, 1), (0, 3)]
    pads = np.array([0, 1, 2, 0, 0, 0, 1, 3])
    expected = np.pad(X, width, mode=mode)
    assert np.array_equal(run_node("Pad", X, pads, mode=mode), expected)
    assert np.array_equal(run_node("Pad", X, np.array([1, 2, 0, 0, 1, 3]), None, np.array([1, -2, 3]), mode=mode), expected)
    if mode != "wrap":
        assert np.array_equal(run_node("Pad", X, opset=2, pads=pads.tolist(), mode=mode), expected)


def test_negative_pads_crop():
    y = run_node("Pad", X, np.array([0, -1, 2, 0, 0, 0, -1, -3]), np.array(7.0))
    assert np.array_equal(y, np.pad(X[:, 1:, :-1, :-3], [(0, 0), (0, 0), (2, 0), (0, 0)], constant_values=7))


def test_prelu_and_clip_of_every_opset():
    slope = RNG.standard_normal((3, 1, 1))
    close(run_node("PRelu", X, slope), np.where(X > 0, X, X * slope))
    for opset, inputs, attributes in ((6, (), {"min": -0.5, "max": 0.5}), (13, (np.array(-0.5), np.array(0.5)), {})):
        assert np.array_equal(run_node("Clip", X, *inputs, opset=opset, **attributes), np.clip(X, -0.5, 0.5))
