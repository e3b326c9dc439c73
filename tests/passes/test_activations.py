"""Spelled-out activations become one call of a local function, which onnxruntime still runs to the same result."""

from __future__ import annotations

import math

import numpy as np
import pytest
from passes_harness import fold_and_compare, model, normal, operators

from infold import InferenceSession, passes

ROOT2, TANH = math.sqrt(2), math.sqrt(2 / math.pi)
CONSTANTS = {
    name: np.float32(value)
    for name, value in {
        "half": 0.5,
        "one": 1,
        "two": 2,
        "three": 3,
        "six": 6,
        "zero": 0,
        "sixth": 1 / 6,
        "root": ROOT2,
        "inverse": 1 / ROOT2,
        "tanh": TANH,
        "cubic": 0.044715,
    }.items()
} | {"units": np.float32([1]), "sixes": np.float32([6])}

SPELLINGS = [
    ("HardSwish", "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)"),
    ("HardSwish", "a = Add(three, x) c = Clip(a, zero, six) m = Mul(c, x) y = Div(m, sixes)"),
    ("HardSwish", "a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)"),
    ("HardSwish", "a = Add(x, three) c = Clip(a, zero, six) d = Mul(sixth, c) y = Mul(d, x)"),
    ("HardSwish", "a = Add(x, three) c = Clip(a, zero, six) s = Mul(x, sixth) y = Mul(s, c)"),
    ("HardSwish", "h = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul(x, h)"),
    ("HardSigmoid", "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)"),
    ("HardSigmoid", "a = Add(x, three) c = Clip(a, zero, six) y = Mul(c, sixth)"),
    ("Silu", "s = Sigmoid(x) y = Mul(x, s)"),
    ("Silu", "s = Sigmoid(x) y = Mul(s, x)"),
    ("Silu", "u = Mul(x, units) s = Sigmoid(u) y = Mul(x, s)"),
    ("Mish", "s = Softplus(x) t = Tanh(s) y = Mul(x, t)"),
    ("Gelu", "d = Div(x, root) e = Erf(d) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)"),
    ("Gelu", "d = Mul(x, inverse) e = Erf(d) p = Add(one, e) m = Mul(x, half) y = Mul(m, p)"),
    ("Gelu", "d = Div(x, root) e = Erf(d) p = Add(e, one) m = Mul(half, p) y = Mul(x, m)"),
    ("Gelu", "d = Div(x, root) e = Erf(d) p = Add(e, one) m = Mul(p, x) y = Div(m, two)"),
    (
        "GeluTanh",
        "q = Pow(x, three) c = Mul(q, cubic) a = Add(x, c) u = Mul(a, tanh) t = Tanh(u) p = Add(t, one) m "
        "= Mul(x, half) y = Mul(m, p)",
    ),
    (
        "GeluTanh",
        "q = Mul(x, x) r = Mul(q, x) c = Mul(cubic, r) a = Add(c, x) u = Mul(tanh, a) t = Tanh(u) p = "
        "Add(one, t) m = Mul(half, p) y = Mul(x, m)",
    ),
    (
        "GeluTanh",
        "q = Mul(x, x) c = Mul(q, cubic) a = Add(c, one) v = Mul(x, a) u = Mul(v, tanh) t = Tanh(u) p = "
        "Add(t, one) m = Mul(x, p) y = Mul(half, m)",
    ),
]


def prepared(
    body: str, *, opset: int = 17, ir_version: int = 8, outputs: str = "float[2,3,40] out", tail: str = "out = Abs(y)"
):
    rng = np.random.default_rng(0)
    subject = model(
        f"g (float[2,3,40] x0) => ({outputs}) {{ x = Neg(x0) {body} {tail} }}",
        CONSTANTS,
        opset=opset,
        ir_version=ir_version,
    )
    x = 4 * normal(rng, 2, 3, 40)
    return fold_and_compare(subject, {"x0": x}, rule=passes.prepare, tolerance=1e-6)[0]


@pytest.mark.parametrize("name, body", SPELLINGS)
def test_every_spelling(name, body):
    result = prepared(body)
    assert operators(result) == {"Neg": 1, f"infold::{name}": 1, "Abs": 1}
    call = next(node for node in result.graph if node.domain == "infold")
    assert call.inputs[0].name == "x" and call.outputs[0].name == "y"
    assert {key: pytest.approx(attr.as_float()) for key, attr in call.attributes.items()} == (
        {"alpha": 1 / 6, "beta": 0.5} if name == "HardSigmoid" else {}
    )


def test_a_constant_that_is_an_output_keeps_its_node_and_is_read():
    body = "k = Constant <value = float[1] {3.0}> () a = Add(x, k) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)"
    result = prepared(body, outputs="float[2,3,40] out, float[1] k")
    assert operators(result) == {"Neg": 1, "infold::HardSwish": 1, "Abs": 1, "Constant": 1}


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, three)",
        "a = Add(x, one) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
        "a = Add(x, three) c = Clip(a, one, six) m = Mul(x, c) y = Div(m, six)",
        "a = Add(x, three) c = Clip(a, zero) m = Mul(x, c) y = Div(m, six)",
        "h = HardSigmoid(x) y = Mul(x, h)",
        "s = Sigmoid(x) y = Mul(x0, s)",
        "s = Sigmoid(x) y = Div(x, s)",
        "u = Mul(x, two) s = Sigmoid(u) y = Mul(x, s)",
        "d = Div(x, two) e = Erf(d) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
        "q = Mul(x, x) c = Mul(q, cubic) a = Add(x, c) u = Mul(a, tanh) t = Tanh(u) p = Add(t, one) m = "
        "Mul(x, half) y = Mul(m, p)",
    ],
)
def test_what_only_looks_like_one(body):
    assert not any(name.startswith("infold::") for name in operators(prepared(body)))


def test_values_read_elsewhere_are_still_computed():
    result = prepared("s = Sigmoid(x) y = Mul(x, s)", outputs="float[2,3,40] out, float[2,3,40] s")
    assert operators(result) == {"Neg": 1, "Sigmoid": 1, "Mul": 1, "Abs": 1}


def test_the_outermost_pattern_wins():
    body = "a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)"  # HardSigmoid is inside
    assert operators(prepared(body)) == {"Neg": 1, "infold::HardSwish": 1, "Abs": 1}


def test_one_function_serves_all_its_calls():
    result = prepared("s = Sigmoid(x) y1 = Mul(x, s) s2 = Sigmoid(y1) y = Mul(s2, y1)")
    assert operators(result) == {"Neg": 1, "infold::Silu": 2, "Abs": 1}
    assert [function.name for function in result.functions.values()] == ["Silu"]
    assert len(set(value.name for node in result.graph for value in node.outputs)) == 4


def test_the_last_node_may_make_a_graph_output():
    assert operators(prepared("s = Sigmoid(x) y = Mul(x, s)", outputs="float[2,3,40] y", tail="")) == {
        "Neg": 1,
        "infold::Silu": 1,
    }


def test_old_operator_sets_and_ir_versions():
    body = "a = Add(x, three) c = Clip <min = 0.0, max = 6.0> (a) m = Mul(x, c) y = Div(m, six)"
    result = prepared(body, opset=9, ir_version=4)
    assert operators(result)["infold::HardSwish"] == 1 and result.ir_version == 8


def test_float16():
    rng = np.random.default_rng(0)
    subject = model(
        "g (float16[2,40] x0) => (float16[2,40] y) { x = Neg(x0) d = Div(x, root) e = Erf(d) p = Add(e, "
        "one) m = Mul(x, p) "
        "y = Mul(m, half) }",
        {name: array.astype(np.float16) for name, array in CONSTANTS.items()},
    )
    result, _ = fold_and_compare(
        subject, {"x0": normal(rng, 2, 40).astype(np.float16)}, rule=passes.prepare, tolerance=2e-3
    )
    assert operators(result) == {"Cast": 2, "Neg": 1, "infold::Gelu": 1}


def test_real_operators_are_left_alone():
    assert operators(prepared("a = HardSwish(x) b = HardSigmoid(a) c = Gelu(b) y = Mish(c)", opset=20)) == {
        "Neg": 1,
        "HardSwish": 1,
        "HardSigmoid": 1,
        "Gelu": 1,
        "Mish": 1,
        "Abs": 1,
    }


def test_activations_are_recognised_before_arithmetic_folds_into_the_convolution():
    rng = np.random.default_rng(0)
    text = (
        "g (float[1,3,6,6] x) => (float[1,4,6,6] y) { c = Conv(x, w) a = Add(c, three) k = Clip(a, "
        "zero, six) y = Div(k, six) }"
    )
    subject = model(text, {"w": normal(rng, 4, 3, 1, 1), **CONSTANTS})
    feeds = {"x": normal(rng, 1, 3, 6, 6)}
    assert operators(fold_and_compare(subject, feeds, rule=passes.prepare)[0]) == {"Conv": 1, "infold::HardSigmoid": 1}
    assert operators(fold_and_compare(subject, feeds)[0]) == {"Conv": 1, "Clip": 1, "Div": 1}


def test_a_prepared_model_may_be_stored_and_prepared_again():
    rng = np.random.default_rng(0)
    subject = model(
        "g (float[2,9] x) => (float[2,9] y) { s = Sigmoid(x) m = Mul(x, s) a = Add(m, three) c = Clip(a, "
        "zero, six) y = Div(c, six) }",
        CONSTANTS,
    )
    once, _ = passes.prepare(subject)
    twice, _ = fold_and_compare(once, {"x": normal(rng, 2, 9)}, rule=passes.prepare)
    assert operators(once) == {"infold::Silu": 1, "infold::HardSigmoid": 1}
    assert operators(twice) == {"infold::Silu": 1, "HardSigmoid": 1}


def test_subgraphs_keep_their_operators():
    text = """g (float[2,3] x, bool c) => (float[2,3] y) {
        y = If(c) <then_branch = t () => (float[2,3] a) { s = Sigmoid(x) a = Mul(x, s) },
                   else_branch = e () => (float[2,3] b) { b = Neg(x) }> }"""
    x = normal(np.random.default_rng(0), 2, 3)
    subject = model(text)
    fold_and_compare(subject, {"x": x, "c": np.array(True)}, rule=passes.prepare)
    (y,) = InferenceSession(subject).run(None, {"x": x, "c": np.array(True)})  # used to fail: no operator Silu in the branch
    np.testing.assert_allclose(y, x / (1 + np.exp(-x)), rtol=1e-6)
