"""Channels that are constant go, and the next convolution's bias takes what they contributed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from passes_harness import constant, fold_and_measure, inferred, normal, operators, statistics

BN = "BatchNormalization"


def subject_of(between: str, tail: str, *, negative: bool = False, alive: int = 4) -> ir.Model:
    """Conv, BatchNorm with γ = 0 in all but `alive` of 6 channels, `between`, and a convolution of its result z."""
    rng = np.random.default_rng(0)
    constants = {"w": normal(rng, 6, 3, 3, 3), "d": normal(rng, 6, 1, 3, 3), "e": normal(rng, 6),
                 "v": normal(rng, 5, 6, 3, 3), "u": normal(rng, 5, 6, 1, 1), "c": normal(rng, 5),
                 "g": normal(rng, 6, 3, 3, 3),
                 "low": np.float32(-0.5), "high": np.float32(0.5), **statistics(rng, 6)}
    constants["scale"][alive:] = 0
    if negative:
        constants["bias"] = -np.abs(constants["bias"])
    text = f"k = Conv <pads = [1, 1, 1, 1]> (x, w) n = {BN}(k, scale, bias, mean, var) {between} {tail}"
    return inferred(f"g (float[2,3,7,7] x) => (float[] y) {{ {text} }}", constants)


def check(subject: ir.Model) -> ir.Model:
    return fold_and_measure(subject, {"x": normal(np.random.default_rng(1), 2, 3, 7, 7)})[0]


@pytest.mark.parametrize(
    "between, tail, negative",
    [
        ("z = Relu(n)", "y = Conv(z, v, c)", False),
        ("z = Relu(n)", "y = Conv <pads = [1, 1, 1, 1]> (z, v)", True),
        ("z = LeakyRelu(n)", "y = Conv(z, u)", False),
        ("z = Clip(n, low, high)", "y = Conv(z, u, c)", False),
        ("a = Relu(n) z = MaxPool <kernel_shape = [2, 2]> (a)", "y = Conv(z, u)", False),
        ("a = Relu(n) z = GlobalAveragePool(a)", "y = Conv(z, u)", False),
        ("a = Relu(n) b = Conv <group = 6> (a, d, e) z = Relu(b)", "y = Conv(z, u)", False),
        ("a = Relu(n) b = Conv <group = 6, pads = [1, 1, 1, 1]> (a, d, e) z = Relu(b)", "y = Conv(z, u)", True),
    ],
)
def test_dead_channels_go(between, tail, negative):
    result = check(subject_of(between, tail, negative=negative))
    first, last = ([node for node in result.graph if node.op_type == "Conv"][i] for i in (0, -1))
    assert first.inputs[1].shape[0] == last.inputs[1].shape[1] == 4
    assert constant(result, "w").shape == (4, 3, 3, 3)
    assert operators(result)[BN] == 0


@pytest.mark.parametrize(
    "between, tail",
    [
        ("z = LeakyRelu(n)", "y = Conv <pads = [1, 1, 1, 1]> (z, v)"),  # a constant other than zero, and a border
        ("z = Relu(n)", "y = Conv <group = 2> (z, g)"),
        ("z = Relu(n)", "y = Add(z, n)"),
        ("z = Relu(n)", "p = Conv(z, u) q = ReduceMean(z) y = Add(p, q)"),
        ("z = Sigmoid(n)", "y = Conv(z, u)"),
    ],
)
def test_what_stays(between, tail):
    assert constant(check(subject_of(between, tail)), "w").shape == (6, 3, 3, 3)


def test_a_layer_that_is_dead_entirely_stays():
    assert constant(check(subject_of("z = Relu(n)", "y = Conv(z, u, c)", alive=0)), "w").shape == (6, 3, 3, 3)
