"""BatchNorms written by hand and chains of per-channel arithmetic become one BatchNormalization, or go into a layer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from passes_harness import assert_close, batchnorm, fold, fold_and_measure, model, normal, operators, run, statistics

BN = "BatchNormalization"
BY_HAND = [
    "d = Sub({x}, mean) v = Add(var, eps) s = Sqrt(v) n = Div(d, s) g = Mul(scale, n) y = Add(g, bias)",
    "d = Sub({x}, mean) v = Add(eps, var) s = Sqrt(v) r = Reciprocal(s) n = Mul(r, d) g = Mul(n, scale) "
    "y = Add(bias, g)",
    "v = Add(var, eps) s = Pow(v, half) g = Div(scale, s) m = Mul(mean, g) t = Sub(bias, m) k = Mul({x}, g) "
    "y = Add(k, t)",
    "o = Neg(mean) d = Add({x}, o) g = Mul(d, scale) v = Add(var, eps) s = Sqrt(v) n = Div(g, s) y = Add(n, bias)",
    "d = Sub(mean, {x}) v = Add(var, eps) s = Sqrt(v) n = Div(d, s) g = Mul(n, scale) y = Sub(bias, g)",
]


def by_hand(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: array.reshape(shape) for name, array in statistics(rng, 5).items()} | {
        "eps": np.float32(1e-5),
        "half": np.float32(0.5),
    }


@pytest.mark.parametrize("text", BY_HAND)
@pytest.mark.parametrize("shape", [(5, 1, 1), (1, 5, 1, 1)])
def test_by_hand_behind_a_convolution(text, shape):
    rng = np.random.default_rng(0)
    subject = model(
        f"g (float[N,3,4,4] x) => (float[N,5,4,4] y) {{ c = Conv(x, w) {text.format(x='c')} }}",
        {"w": normal(rng, 5, 3, 1, 1), **by_hand(shape, rng)},
    )
    result, _ = fold_and_measure(subject, {"x": normal(rng, 2, 3, 4, 4)})
    assert operators(result) == {"Conv": 1}


@pytest.mark.parametrize("text", BY_HAND)
@pytest.mark.parametrize("layer", ["Gemm(x, w)", "MatMul(x, w)"])
def test_by_hand_behind_a_matrix_product(text, layer):
    rng = np.random.default_rng(0)
    subject = model(
        f"g (float[N,3] x) => (float[N,5] y) {{ c = {layer} {text.format(x='c')} }}",
        {"w": normal(rng, 3, 5), **by_hand((1, 5), rng)},
    )
    result, _ = fold_and_measure(subject, {"x": normal(rng, 4, 3)})
    assert operators(result) in ({"Gemm": 1}, {"MatMul": 1, "Add": 1})


@pytest.mark.parametrize("text", [text for text in BY_HAND if "k = Mul" not in text])
@pytest.mark.parametrize("shape", [(5,), (5, 1), (1, 5, 1, 1)])
def test_by_hand_without_a_layer(text, shape):
    rng = np.random.default_rng(0)
    tail = ",4" * (len(shape) - (1 if shape[0] == 5 else 2))
    constants = by_hand(shape, rng)
    subject = model(f"g (float[N,5{tail}] x) => (float[N,5{tail}] y) {{ {text.format(x='x')} }}", constants)
    x = normal(rng, 3, 5, *[4] * tail.count("4"))
    result, report = fold_and_measure(subject, {"x": x})
    assert operators(result) == {BN: 1}
    assert [(item.verdict, item.reason) for item in report.items] == [("kept", "it normalises the graph input 'x'")]
    flat = {name: array.ravel() for name, array in constants.items()}
    assert_close(run(result, {"x": x})["y"], batchnorm(x, flat))


def test_batchnorm_and_scale_are_one_pass():
    rng = np.random.default_rng(0)
    subject = model(
        f"""g (float[N,5,4,4] x) => (float[N,5,4,4] y) {{ r = Relu(x) n = {BN}(r, ascale, abias, amean, avar)
        m = Mul(n, k) b = Add(m, k) o = {BN}(b, bscale, bbias, bmean, bvar) y = Relu(o) }}""",
        {"k": normal(rng, 5, 1, 1), **statistics(rng, 5, "a"), **statistics(rng, 5, "b")},
    )
    for node, name in zip(subject.graph, ["", "first", "", "", "second", ""]):
        node.name = name or None
    result, report = fold_and_measure(subject, {"x": normal(rng, 2, 5, 4, 4)})
    assert [node.op_type for node in result.graph] == ["Relu", BN, "Relu"]
    assert [(item.name, item.verdict, item.into) for item in report.items] == [
        ("first", "folded", "second"),
        ("second", "kept", None),
    ]
    assert report.remaining == 1


@pytest.mark.parametrize(
    "text",
    [
        "a = Mul(x, two) b = Add(a, two) c = Mul(b, two) y = Neg(c)",  # numbers: no channels
        "a = Mul(x, k) y = Add(a, k)",  # two only: may belong to another normalisation
        "a = Mul(x, last) b = Add(a, last) y = Mul(b, last)",  # along another axis
        "a = Mul(x, k) b = Add(a, k) c = Mul(b, k) d = Add(c, a) y = Add(d, b)",  # read in between
        "a = Mul(x, k) b = Add(a, inf) y = Mul(b, k)",
        "a = Mul(x, big) b = Mul(a, big) y = Mul(b, tiny)",
    ],
)
def test_what_stays(text):
    rng = np.random.default_rng(0)
    constants = {
        "k": normal(rng, 5, 1),
        "two": np.float32(2),
        "last": normal(rng, 4),
        "inf": np.full((5, 1), np.inf, np.float32),
        "big": np.float32(1e15) + normal(rng, 5, 1),
        "tiny": normal(rng, 5, 1),
    }
    subject = model(f"g (float[N,5,4] x) => (float[N,5,4] y) {{ {text} }}", constants)
    result, _ = fold(subject)
    assert operators(result) == operators(subject)
    x = {"x": normal(rng, 2, 5, 4)}
    assert np.array_equal(run(result, x)["y"], run(subject, x)["y"], equal_nan=True)


@given(st.lists(st.sampled_from(["Mul({a}, k)", "Add(k, {a})", "Sub(k, {a})", "Div({a}, k)", "Neg({a})",
                                 f"{BN}({{a}}, scale, bias, mean, var)"]), min_size=3, max_size=6),
       st.integers(0, 99))
def test_any_chain(steps, seed):
    rng = np.random.default_rng(seed)
    names = [f"v{i}" for i in range(len(steps) - 1)] + ["y"]
    body = " ".join(f"{out} = {step.format(a=a)}" for a, out, step in zip(["x", *names], names, steps))
    constants = {"k": np.abs(normal(rng, 5, 1, 1)) + 0.3, **statistics(rng, 5)}
    constants["var"] += 0.5
    subject = model(f"g (float[N,5,2,3] x) => (float[N,5,2,3] y) {{ {body} }}", constants)
    result, _ = fold_and_measure(subject, {"x": normal(rng, 2, 5, 2, 3)})
    if any(step.startswith(BN) for step in steps):  # other arithmetic may cancel to one number for all channels
        assert operators(result) == {BN: 1}
