"""Constant folding: values, types and names are right, and what must not be folded stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from passes_harness import constant, fold, fold_and_compare, model, normal, operators, run

from infold import passes


def folded(
    text: str, constants: dict[str, np.ndarray] | None = None, feeds: dict[str, np.ndarray] | None = None, **versions
) -> ir.Model:
    """Fold a model whose output adds x to the expression `c`, compare in onnxruntime, return what is left."""
    feeds = {"x": normal(np.random.default_rng(0), 2, 3, 4)} if feeds is None else feeds
    return fold_and_compare(model(text, constants, **versions), feeds)[0]


def test_torch_spells_a_zero_bias_with_castlike_and_shape():
    rng = np.random.default_rng(0)
    result = folded(
        """g (float[N,3,6,6] x) => (float[N,4,4,4] y) {
        s = Shape <start = 0, end = 1> (w) one = Constant <value_ints = [1]> () e = Expand(s, one)
        z = CastLike(zero, x) b = Expand(z, e) c = Conv(x, w, b)
        y = BatchNormalization(c, scale, bias, mean, var) }""",
        {
            "w": normal(rng, 4, 3, 3, 3),
            "zero": np.array(0.0),
            "scale": normal(rng, 4),
            "bias": normal(rng, 4),
            "mean": normal(rng, 4),
            "var": np.ones(4, np.float32),
        },
        {"x": normal(rng, 2, 3, 6, 6)},
    )
    assert operators(result) == {"Conv": 1}


@pytest.mark.parametrize(
    "expression",
    [
        "k = Constant <value_float = 1.5> () c = Identity(k)",
        "k = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () c = Neg(k)",
        "k = Constant <value_int = 3> () c = CastLike(k, x)",
        "s = Shape(x) c = Cast <to = 1> (s)",
        "s = Size(x) c = CastLike(s, x)",
        "s = Shape <start = -2> (x) f = Cast <to = 1> (s) k = ReduceProd <keepdims = 0> (f) c = Sqrt(k)",
        "s = Shape(x) r = ConstantOfShape <value = float[1] {2.5}> (s) c = Softmax(r)",
        "s = Shape(x) e = Expand(two, s) c = Mul(e, two)",
        "p, q = Split <axis = 0, num_outputs = 2> (four) c = Concat <axis = 0> (q, p)",
    ],
)
def test_constant_expressions(expression):
    shape = "2" if "s = Shape(x) c" in expression else "2,3,4"
    x = "float[3]" if shape == "2" else "float[2,3,4]"
    feeds = {"x": normal(np.random.default_rng(0), 3) if shape == "2" else normal(np.random.default_rng(0), 2, 3, 4)}
    result = folded(
        f"g ({x} x) => ({x} y) {{ {expression} y = Add(x, c) }}",
        {"two": np.float32([2.0]), "four": np.float32([1, 2, 3, 4])},
        feeds,
        opset=18,
    )
    assert operators(result) == {"Add": 1} and set(result.graph.initializers) == {"c"}


@pytest.mark.parametrize(
    "expression, left",
    [
        ("s = Shape(x) d = Gather(s, one) c = Cast <to = 1> (d)", {"Add": 1}),
        ("s = Shape(x) d = Gather(s, back) c = Cast <to = 1> (d)", {"Add": 1}),
        ("s = Shape(x) d = Slice(s, first, last) c = Cast <to = 1> (d)", {"Add": 1}),
        ("s = Shape <start = 1, end = 2> (x) c = Cast <to = 1> (s)", {"Add": 1}),
        ("s = Shape <start = 1> (x) d = Gather(s, zero) c = Cast <to = 1> (d)", {"Add": 1}),
        ("s = Shape(x) d = Gather(s, zero) c = Cast <to = 1> (d)", {"Shape": 1, "Gather": 1, "Cast": 1, "Add": 1}),
        ("s = Shape <end = 1> (x) c = Cast <to = 1> (s)", {"Shape": 1, "Cast": 1, "Add": 1}),
        ("s = Size(x) c = Cast <to = 1> (s)", {"Size": 1, "Cast": 1, "Add": 1}),
    ],
)
def test_shapes_known_in_part(expression, left):
    result = folded(
        f"g (float[N,3,4] x) => (float[N,3,4] y) {{ {expression} y = Add(x, c) }}",
        {name: np.array(value) for name, value in {"one": 1, "zero": 0, "back": -1, "first": [1], "last": [2]}.items()},
    )
    assert operators(result) == left


def test_sizes_declared_inside_are_not_believed_once_the_inputs_are_open():
    subject = model(
        "g (float[N,3,4] x) => (float[N,3,4] y) { r = Relu(x) s = Shape <end = 1> (r) f = Cast <to = 1> (s) y = Mul(r, f) }"
    )
    subject.graph[0].outputs[0].shape = ir.Shape([1, 3, 4])
    result, _ = fold(subject)
    assert np.array_equal(run(result, {"x": np.ones((5, 3, 4), np.float32)})["y"], np.full((5, 3, 4), 5, np.float32))


def test_sizes_declared_inside_are_not_believed_where_they_become_data():
    stale = model("""g (float[1,1,4,4] x) => (float[1,1,4,4] y) <float[1,1,2,2] r> {
        r = Relu(x) s = Shape(r) i = Constant <value_ints = [2]> () h = Gather(s, i) f = Cast <to = 1> (h) y = Mul(r, f) }""")
    x = np.ones((1, 1, 4, 4), np.float32)
    np.testing.assert_array_equal(run(fold(stale)[0], {"x": x})["y"], 4 * x)


def test_shapes_that_folding_makes_known():
    rng = np.random.default_rng(0)
    result = folded(
        """g (float[N,24] x) => (float[N,4,6] y) {
        k = Add(four, zero) t = Concat <axis = 0> (minus, k, six) r = Reshape(x, t) s = Shape(r) d = Gather(s, two)
        f = Cast <to = 1> (d) y = Mul(r, f) }""",
        {name: np.array([value]) for name, value in {"four": 4, "zero": 0, "minus": -1, "six": 6}.items()} | {"two": np.array(2)},
        {"x": normal(rng, 2, 24)},
    )
    assert operators(result) == {"Reshape": 1, "Mul": 1}


@pytest.mark.parametrize(
    "expression",
    [
        "k = RandomNormal <shape = [4], seed = 1.0> () c = Abs(k)",
        "k = RandomUniformLike <seed = 1.0> (four) c = Abs(k)",
        "b = Bernoulli <seed = 1.0> (half) c = Abs(b)",
    ],
)
def test_random_numbers_are_drawn_in_every_run(expression):
    subject = model(
        f"g (float[2,3,4] x) => (float[2,3,4] y) {{ {expression} y = Add(x, c) }}",
        {"four": np.ones(4, np.float32), "half": np.full(4, 0.5, np.float32)},
    )
    assert operators(fold(subject)[0]) == operators(subject)


def test_defaults_that_a_caller_may_override_are_not_constants():
    text = "g (float[4] x, float[4] k) => (float[4] y) { c = Neg(k) y = Add(x, c) }"
    constants = {"k": np.ones(4, np.float32)}
    assert operators(fold(model(text, constants, ir_version=4))[0]) == {"Neg": 1, "Add": 1}
    before = model(text, constants, ir_version=3)  # there an initializer must be an input, and is constant
    result, _ = fold(before)
    assert operators(result) == {"Add": 1} and [value.name for value in result.graph.inputs] == ["x"]


def test_results_stay_within_the_size_limit():
    result, _ = fold(
        model(
            "g (float[1] x) => (float[1] y) { k = ConstantOfShape(s) c = ReduceSum <keepdims = 0> (k) y = Add(x, c) }",
            {"s": np.array([1 << 20, 1 << 20])},
        )
    )
    assert operators(result) == {"ConstantOfShape": 1, "ReduceSum": 1, "Add": 1}


def test_quantized_weights_stay_quantized_in_a_stored_model():
    rng = np.random.default_rng(0)
    constants = {"q": rng.integers(-128, 128, (4, 3)).astype(np.int8), "s": np.float32(0.02), "z": np.int8(3)}
    text = "g (float[2,4] x) => (float[2,3] y) { w = DequantizeLinear(q, s, z) y = MatMul(x, w) }"
    subject = model(text, constants, opset=19)
    x = {"x": normal(rng, 2, 4)}
    assert operators(fold_and_compare(subject, x)[0]) == {"DequantizeLinear": 1, "MatMul": 1}
    assert operators(fold_and_compare(subject, x, rule=passes.prepare)[0]) == {"MatMul": 1}


def test_a_constant_graph_output_keeps_its_node():
    result = folded(
        "g (float[2] x) => (float[2] y, float[2] k) { k = Neg(c) y = Add(x, k) }",
        {"c": np.float32([1, 2])},
        {"x": np.float32([3, 4])},
    )
    assert operators(result) == {"Neg": 1, "Add": 1}


def test_a_batchnorm_of_constants_is_a_constant():
    rng = np.random.default_rng(0)
    subject = model(
        "g (float[1,3,2] x) => (float[1,3,2] y) { n = BatchNormalization <momentum = 0.9> (k, s, s, s, s) y = Add(x, n) }",
        {"k": normal(rng, 1, 3, 2), "s": np.float32([1, 2, 3])},
        opset=9,
    )
    result, report = fold_and_compare(subject, {"x": normal(rng, 1, 3, 2)})
    assert operators(result) == {"Add": 1} and report.folded == 1


def test_constants_inside_subgraphs():
    text = """g (float[2] x, bool p) => (float[2] y) { y = If (p) <
        then_branch = t () => (float[2] a) {
            k = Neg(c) m = Constant <value_floats = [1.0, 2.0]> () n = Mul(k, m) a = Add(x, n) },
        else_branch = e () => (float[2] b) { k2 = Abs(c) b = Add(x, k2) }> }"""
    for choice in (True, False):
        result = folded(text, {"c": np.float32([1, -2])}, {"x": np.float32([3, 5]), "p": np.array(choice)})
    assert operators(result) == {"If": 1, "Add": 2}


@given(
    st.sampled_from(["float16", "float", "double", "int32", "int64", "uint8", "bool"]),
    st.sampled_from(["float16", "float", "double", "int32", "int64", "uint8", "bool"]),
    st.lists(st.integers(0, 3), max_size=3),
)
def test_castlike_and_expand_keep_the_types_onnx_prescribes(source, target, shape):
    names = {"float": np.float32, "double": np.float64}
    array = np.array([1], names.get(source, source))
    subject = model(
        f"g ({target}[1] x) => ({target}[D] y) {{ c = CastLike(k, x) e = Expand(c, s) r = Reshape(e, flat) "
        "y = Concat <axis = 0> (x, r, x) }",
        {"k": array, "s": np.array([*shape, 1]), "flat": np.array([-1])},
    )
    result, _ = fold_and_compare(subject, {"x": np.array([1], names.get(target, target))}, tolerance=0)
    assert operators(result) == {"Concat": 1}
    assert constant(result, "r").dtype == names.get(target, target)
