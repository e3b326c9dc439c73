"""BatchNormalization in front of layers goes into their weights when all of them can take it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passes_harness import fold, fold_and_measure, inferred, model, normal, operators, statistics

from infold import passes

BN = "BatchNormalization"
RNG = np.random.default_rng(0)
CONSTANTS = {
    "w1": normal(RNG, 5, 6, 1, 1),
    "w3": normal(RNG, 5, 6, 3, 3),
    "dw": normal(RNG, 6, 1, 3, 3),
    "b": normal(RNG, 5),
    "m": normal(RNG, 6, 5),
    "flat": normal(RNG, 5, 96),
    "k": normal(RNG, 6, 1, 1),
    "pos": np.abs(normal(RNG, 6, 1, 1)) + 0.1,
    "shape": np.array([2, 6, 16]),
    "zbias": np.zeros(6, np.float32),
    "zmean": np.zeros(6, np.float32),
    **statistics(RNG, 6),
}
NORM = f"{BN}(r, scale, bias, mean, var)"
SCALED = f"{BN}(r, scale, zbias, zmean, var)"
MEAN = "g = GlobalAveragePool(n) f = Flatten(g)"


def check(body: str):
    subject = inferred(f"g (float[2,6,4,4] x) => (float[] y) {{ r = Relu(x) {body} }}", CONSTANTS)
    return fold_and_measure(subject, {"x": normal(np.random.default_rng(1), 2, 6, 4, 4)})


@pytest.mark.parametrize(
    "body",
    [
        f"n = {NORM} y = Conv(n, w1)",
        f"n = {NORM} y = Conv <strides = [2, 2]> (n, w3, b)",
        f'n = {NORM} y = Conv <group = 6, auto_pad = "VALID"> (n, dw)',
        f"n = {SCALED} y = Conv <pads = [1, 1, 1, 1]> (n, w3, b)",
        f'n = {SCALED} y = Conv <auto_pad = "SAME_UPPER"> (n, w3)',
        f"n = {NORM} p = Conv(n, w1) q = Conv(n, w3) s = ReduceMean(q) y = Add(p, s)",
        f"n = {NORM} f = Flatten(n) y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (f, flat, b)",
        f"n = {NORM} {MEAN} y = Gemm(f, m)",
        f"n = {NORM} {MEAN} y = MatMul(f, m)",
        f"n = {NORM} t = Transpose <perm = [0, 2, 3, 1]> (n) p = MatMul(t, m) y = Add(p, b)",
        f"n = {NORM} s = Reshape(n, shape) g = ReduceMean <axes = [2], keepdims = 0> (s) y = Gemm(g, m, b)",
        f"n = {NORM} p = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 0, 0]> (n) y = Conv(p, w3)",
        "n = Mul(r, pos) l = LeakyRelu(n) p = MaxPool <kernel_shape = [2, 2]> (l) "
        "y = Conv <pads = [1, 1, 1, 1]> (p, w3)",
        "a = Sub(r, k) d = Div(a, pos) y = Conv(d, w3, b)",
    ],
)
def test_into_every_reader(body):
    result, report = check(body)
    counts = operators(result)
    assert not counts[BN] + counts["Mul"] + counts["Sub"] + counts["Div"]
    assert all(item.verdict == "folded" and item.into for item in report.items)


@pytest.mark.parametrize(
    "body, reason",
    [
        (f"n = {NORM} y = Conv <pads = [0, 0, 1, 0]> (n, w3)",
         "Conv 'y' pads with zeros, which its shift would change"),
        (f"n = {NORM} p = Conv(n, w1) q = Neg(n) s = ReduceMean(q) y = Add(p, s)", "Neg 'q' reads it"),
        (f"n = {NORM} a = Relu(n) y = Conv(a, w1)",
         "Relu 'a' reads it (a session runs both in one pass)"),
        (f"n = {NORM} t = MatMul(n, n) y = Neg(t)", "input 'n' of MatMul 't' is computed at run time"),
        (f"n = {NORM} t = Transpose(n) q = ReduceMax(w1) y = Mul(t, q)", "Mul 'y' reads it"),
        (f"n = {NORM} p = MaxPool <kernel_shape = [2, 2]> (n) y = Conv(p, w1)",
         "its scale is not positive in every channel"),
    ],
)
def test_what_stays_and_why(body, reason):
    result, report = check(body)
    (item,) = report.items
    assert item.verdict == "kept" and operators(result)[BN] == 1
    assert item.reason == f"it follows Relu 'r', not a convolution or matrix product; forward, {reason}"


def test_who_reads_the_shape_alone_is_no_obstacle():
    """As torch exports `x.shape[0]` of a batch that is open."""
    text = f"""g (float[N,6,4,4] r) => (float[] y) {{ n = {NORM} c = Conv(n, w1) b = Shape <start = 0, end = 1> (n)
        s = Concat <axis = 0> (b, minus) y = Reshape(c, s) }}"""
    constants = {name: CONSTANTS[name] for name in ("w1", "scale", "bias", "mean", "var")} | {"minus": np.array([-1])}
    subject, feeds = model(text, constants), {"r": normal(np.random.default_rng(1), 3, 6, 4, 4)}
    result, report = fold_and_measure(subject, feeds)
    assert not operators(result)[BN] and report.items[0].into == "c"
    alone = f"g (float[N,6,4,4] r) => (int64[4] y) {{ n = {NORM} y = Shape(n) }}"
    result, report = fold(model(alone, {name: CONSTANTS[name] for name in ("scale", "bias", "mean", "var")}))
    assert operators(result)[BN] == 1 and "only its shape is read" in report.items[0].reason


def test_spelled_out_activations_stay_recognisable():
    constants = {name: np.float32(value) for name, value in {"three": 3, "zero": 0, "six": 6}.items()}
    subject = model(
        """g (float[2,6,4,4] x) => (float[2,5,4,4] y) { r = Relu(x) a = Add(r, three) c = Clip(a, zero, six)
        m = Mul(r, c) h = Div(m, six) y = Conv(h, w1) }""",
        {"w1": CONSTANTS["w1"], **constants},
    )
    once, _ = fold(subject)
    twice, _ = fold(once, passes.prepare)
    assert operators(twice) == {"Relu": 1, "infold::HardSwish": 1, "Conv": 1}


def test_preprocessing_goes_into_the_first_layer():
    subject = model(
        "g (float[2,6,4,4] x) => (float[2,5,4,4] y) { d = Div(x, n) y = Conv <pads = [1, 1, 1, 1]> (d, w3) }",
        {"w3": CONSTANTS["w3"], "n": np.float32(255)},
    )
    result, _ = fold_and_measure(subject, {"x": 255 * np.abs(normal(np.random.default_rng(1), 2, 6, 4, 4))})
    assert operators(result) == {"Conv": 1}


@pytest.mark.parametrize("opset", [10, 17])
@pytest.mark.parametrize("pads", ["1, 1, 1, 1", "0, 2, 1, 0"])
def test_one_border_for_all_channels_is_a_pad(opset, pads):
    """Pixels from 0 to 255 become -1 to 1: black around the picture would be a border of 127.5 before that."""
    subject = model(
        f"""g (float[N,6,H,W] x) => (float[N,5,P,Q] y)
        {{ d = Sub(x, n) e = Div(d, n) y = Conv <pads = [{pads}], strides = [2, 1]> (e, w3, b) }}""",
        {"w3": CONSTANTS["w3"], "b": CONSTANTS["b"], "n": np.float32(127.5)}, opset=opset,
    )
    result, _ = fold_and_measure(subject, {"x": 255 * np.random.default_rng(1).random((2, 6, 7, 9), np.float32)})
    assert operators(result) == {"Pad": 1, "Conv": 1}
    assert operators(fold(result)[0]) == {"Pad": 1, "Conv": 1}


def test_a_batchnorm_of_one_channel_is_a_pad():
    parameters = statistics(np.random.default_rng(3), 1)
    weight = normal(np.random.default_rng(4), 5, 1, 3, 3)
    subject = model(
        f"g (float[2,1,4,4] x) => (float[2,5,4,4] y) {{ n = {BN}(x, scale, bias, mean, var) "
        "y = Conv <pads = [1, 1, 1, 1]> (n, w) }", parameters | {"w": weight})
    result, report = fold_and_measure(subject, {"x": normal(np.random.default_rng(1), 2, 1, 4, 4)})
    assert operators(result) == {"Pad": 1, "Conv": 1} and report.remaining == 0
    assert [tuple(value.shape) for node in result.graph for value in node.outputs] == [(2, 1, 6, 6), (2, 5, 4, 4)]


@pytest.mark.parametrize(
    "body",
    [
        "d = Sub(x, n) y = Conv <auto_pad = \"SAME_UPPER\"> (d, w3)",  # padding that depends on the size
        "d = Sub(x, k) y = Conv <pads = [1, 1, 1, 1]> (d, w3)",  # a border for every channel
        "d = Sub(x, n) p = Conv <pads = [1, 1, 1, 1]> (d, w3) q = Conv <pads = [1, 1, 1, 1]> (d, w3) r = Relu(q) y = Add(p, r)",
    ],
)
def test_other_borders_stay(body):
    subject = model(
        f"g (float[2,6,4,4] x) => (float[2,5,4,4] y) {{ {body} }}",
        {name: array for name, array in (CONSTANTS | {"n": np.float32(127.5)}).items() if f" {name})" in body},
    )
    result, _ = fold(subject)
    assert operators(result)["Sub"] == 1 and not operators(result)["Pad"]


def test_a_map_that_is_an_output_stays():
    subject = model(
        f"g (float[2,6,4,4] x) => (float[2,6,4,4] n, float[2,5,4,4] y) {{ r = Relu(x) n = {NORM} y = Conv(n, w1) }}",
        {name: CONSTANTS[name] for name in ("scale", "bias", "mean", "var", "w1")},
    )
    result, _ = fold(subject)
    assert operators(result) == {"Relu": 1, BN: 1, "Conv": 1}


def test_overflow_stays():
    huge = {"scale": np.full(6, 1e18, np.float32), "var": np.full(6, 1e-5, np.float32)}
    constants = {name: CONSTANTS[name] for name in ("bias", "mean", "w1")} | huge
    subject = model(
        f"g (float[2,6,4,4] x) => (float[2,5,4,4] y) {{ r = Relu(x) n = {NORM} y = Conv(n, w1) }}", constants
    )
    result, report = fold(subject)
    assert operators(result)[BN] == 1 and "would overflow" in report.items[0].reason


@given(st.integers(1, 3), st.sampled_from([1, 2, 3, 6]), st.integers(1, 3), st.booleans(), st.integers(0, 99))
@settings(max_examples=30)
def test_any_convolution_without_padding(rank, group, filters, bias, seed):
    rng = np.random.default_rng(seed)
    constants = {
        "w": normal(rng, group * filters, 6 // group, *rng.integers(1, 4, rank)),
        "b": normal(rng, group * filters),
        **statistics(rng, 6),
    }
    spatial = ",".join("STU"[:rank])
    subject = model(
        f"""g (float[N,6,{spatial}] x) => (float[N,M,{spatial.lower()}] y)
        {{ r = Relu(x) n = {NORM} y = Conv <group = {group}> (n, w{", b" if bias else ""}) }}""",
        constants,
    )
    result, _ = fold_and_measure(subject, {"x": normal(rng, 2, 6, *[5] * rank)})
    assert operators(result) == {"Relu": 1, "Conv": 1}
