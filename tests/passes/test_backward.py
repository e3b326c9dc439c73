"""BatchNormalization behind a linear layer goes into the weights, exactly, or stays with a reason."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from passes_harness import (
    assert_close,
    batchnorm,
    constant,
    conv,
    conv_transpose,
    fold,
    fold_and_compare,
    model,
    normal,
    operators,
    run,
    statistics,
)

BN = "BatchNormalization"
CONV_BN = "g (float[N,3,6,6] x) => (float[N,4,M,M] y) { c = Conv(x, w) y = BatchNormalization(c, scale, bias, mean, var) }"


def conv_bn(rng: np.random.Generator, **changes: np.ndarray) -> dict[str, np.ndarray]:
    return {"w": normal(rng, 4, 3, 3, 3), **statistics(rng, 4), **changes}


@st.composite
def layers(draw):
    rank, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return {
        "rank": rank,
        "group": group,
        "inputs": group * draw(st.integers(1, 3)),
        "outputs": group * draw(st.integers(1, 3)),
        "kernel": [draw(st.integers(1, 3)) for _ in range(rank)],
        "strides": [draw(st.integers(1, 2)) for _ in range(rank)],
        "bias": draw(st.booleans()),
        "epsilon": draw(st.sampled_from([0.0, 1e-5, 1e-3, 1.0])),
        "transposed": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@given(layers())
def test_convolutions_of_every_kind(layer):
    rng = np.random.default_rng(layer["seed"])
    rank, group, m, c = layer["rank"], layer["group"], layer["outputs"], layer["inputs"]
    shape = (c, m // group) if layer["transposed"] else (m, c // group)
    parameters = statistics(rng, m)
    parameters["w"] = normal(rng, *shape, *layer["kernel"])
    if layer["bias"]:
        parameters["b"] = normal(rng, m)
    kind, bias = "ConvTranspose" if layer["transposed"] else "Conv", ", b" if layer["bias"] else ""
    spatial = ",".join("STU"[:rank])
    subject = model(
        f"""g (float[N,{c},{spatial}] x) => (float[] y) {{
        z = {kind} <group = {group}, strides = {layer["strides"]}> (x, w{bias})
        y = BatchNormalization <epsilon = {layer["epsilon"]:.6f}> (z, scale, bias, mean, var) }}""",
        parameters,
    )
    x = normal(rng, 2, c, *rng.integers(3, 6, rank))
    oracle = conv_transpose if layer["transposed"] else conv
    expected = batchnorm(
        oracle(x, parameters["w"], parameters.get("b"), group=group, strides=layer["strides"]), parameters, layer["epsilon"]
    )
    folded, report = fold(subject)
    assert operators(folded) == {kind: 1}
    assert [(item.verdict, item.into, item.reason) for item in report.items] == [("folded", folded.graph[0].name or "y", None)]
    assert_close(run(folded, {"x": x})["y"], expected)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1]),
    st.sampled_from([None, (), (1,), (5,), (1, 5), (2, 5), (2, 1)]),
    st.sampled_from([0.0, 1.0, -1.5]),
    st.sampled_from([1.0, 0.5]),
)
def test_gemm(seed, transposed, bias_shape, beta, alpha):
    rng = np.random.default_rng(seed)
    parameters = {"w": normal(rng, 5, 3) if transposed else normal(rng, 3, 5), **statistics(rng, 5)}
    if bias_shape is not None:
        parameters["b"] = normal(rng, *bias_shape)
    subject = model(
        f"""g (float[2,3] x) => (float[2,5] y) {{
        z = Gemm <transB = {transposed}, alpha = {alpha}, beta = {beta:.1f}> (x, w{"" if bias_shape is None else ", b"})
        y = BatchNormalization(z, scale, bias, mean, var) }}""",
        parameters,
    )
    x = normal(rng, 2, 3)
    product = alpha * x.astype(np.float64) @ (parameters["w"].T if transposed else parameters["w"])
    if bias_shape is not None:
        product = product + beta * parameters["b"].astype(np.float64)
    folded, _ = fold(subject)
    assert operators(folded) == {"Gemm": 1}
    assert_close(run(folded, {"x": x})["y"], batchnorm(product, parameters))


@pytest.mark.parametrize("bias", [False, True])
def test_matmul(bias):
    rng = np.random.default_rng(0)
    parameters = {"w": normal(rng, 3, 5), "b": normal(rng, 5), **statistics(rng, 5)}
    added = "a = Add(b, m)" if bias else "a = Identity(m)"
    subject = model(
        f"g (float[2,3] x) => (float[2,5] y) {{ m = MatMul(x, w) {added} y = {BN}(a, scale, bias, mean, var) }}", parameters
    )
    folded, report = fold_and_compare(subject, {"x": normal(rng, 2, 3)})
    assert operators(folded) == {"MatMul": 1, "Add": 1} and report.folded == 1
    assert "m" not in {value.name for node in folded.graph for value in node.outputs}, (
        "a name means the same tensor before and after"
    )


def test_matmul_with_weights_on_the_left_has_its_channels_on_axis_one():
    rng = np.random.default_rng(0)
    subject = model(
        f"g (float[2,3,7] x) => (float[2,5,7] y) {{ m = MatMul(w, x) y = {BN}(m, scale, bias, mean, var) }}",
        {"w": normal(rng, 5, 3), **statistics(rng, 5)},
    )
    folded, _ = fold_and_compare(subject, {"x": normal(rng, 2, 3, 7)})
    assert operators(folded) == {"MatMul": 1, "Add": 1}


def test_matmul_of_rank_3_normalised_along_another_axis_stays():
    rng = np.random.default_rng(0)
    subject = model(
        f"g (float[2,4,3] x) => (float[2,4,4] y) {{ m = MatMul(x, w) y = {BN}(m, scale, bias, mean, var) }}",
        {"w": normal(rng, 3, 4), **statistics(rng, 4)},
    )
    _, report = fold_and_compare(subject, {"x": normal(rng, 2, 4, 3)})
    assert report.items[0].reason == "its channel axis is not the one that the weights produce"


def test_matmul_and_its_bias_alone_stay_as_they_are():
    rng = np.random.default_rng(0)
    subject = model(
        "g (float[2,3] x) => (float[2,5] y) { m = MatMul(x, w) y = Add(m, b) }", {"w": normal(rng, 3, 5), "b": normal(rng, 5)}
    )
    folded, _ = fold_and_compare(subject, {"x": normal(rng, 2, 3)})
    assert [node.outputs[0].name for node in folded.graph] == ["m", "y"]


def test_a_chain_is_composed_first_and_rounded_once():
    rng = np.random.default_rng(0)
    parameters = {"w": normal(rng, 4, 3, 3, 3), "k": normal(rng, 1, 4, 1, 1), "b": normal(rng, 4, 1, 1), **statistics(rng, 4)}
    subject = model(
        f"""g (float[N,3,6,6] x) => (float[N,4,4,4] y) {{ c = Conv(x, w) n = {BN}(c, scale, bias, mean, var)
                        m = Mul(n, k) y = Add(m, b) }}""",
        parameters,
    )
    folded, report = fold_and_compare(subject, {"x": normal(rng, 2, 3, 6, 6)})
    assert operators(folded) == {"Conv": 1} and report.folded == 1
    exact = {name: array.astype(np.float64).reshape(4, -1) for name, array in parameters.items()}
    scale = exact["scale"] / np.sqrt(exact["var"] + np.float64(np.float32(1e-5))) * exact["k"]
    assert np.array_equal(constant(folded, "w").reshape(4, -1), (exact["w"] * scale).astype(np.float32))


def test_weights_shared_by_two_convolutions_are_copied():
    rng = np.random.default_rng(0)
    subject = model(
        f"""g (float[N,3,6,6] x) => (float[N,4,4,4] p, float[N,4,4,4] q) {{
        a = Conv(x, w) p = {BN}(a, scale, bias, mean, var) n = Abs(x) b = Conv(n, w) q = Relu(b) }}""",
        conv_bn(rng),
    )
    folded, _ = fold_and_compare(subject, {"x": normal(rng, 2, 3, 6, 6)})
    assert operators(folded) == {"Conv": 2, "Abs": 1, "Relu": 1}


def test_a_bias_shared_with_the_statistics_is_copied():
    rng = np.random.default_rng(0)
    subject = model(
        f"g (float[N,3,6,6] x) => (float[N,4,4,4] y) {{ c = Conv(x, w, bias) y = {BN}(c, scale, bias, mean, var) }}", conv_bn(rng)
    )
    folded, _ = fold_and_compare(subject, {"x": normal(rng, 2, 3, 6, 6)})
    assert operators(folded) == {"Conv": 1}


def test_the_result_takes_the_name_of_what_it_stands_for():
    rng = np.random.default_rng(0)
    subject = model(
        f"""g (float[N,3,6,6] x) => (float[N,4,4,4] y, float[N,4,4,4] n) {{
        c = Conv(x, w) n = {BN}(c, scale, bias, mean, var) y = Relu(n) }}""",
        conv_bn(rng),
    )
    folded, _ = fold_and_compare(subject, {"x": normal(rng, 2, 3, 6, 6)})
    assert [node.outputs[0].name for node in folded.graph] == ["n", "y"]


def test_a_batchnorm_in_a_subgraph_folds_there():
    rng = np.random.default_rng(0)
    subject = model(
        f"""g (float[N,3,6,6] x, bool p) => (float[N,4,4,4] y) {{
        y = If(p) <then_branch = t () => (float[N,4,4,4] v) {{ c = Conv(x, w) v = {BN}(c, scale, bias, mean, var) }},
                   else_branch = e () => (float[N,4,4,4] u) {{ u = Conv(x, w) }}> }}""",
        conv_bn(rng),
    )
    x = normal(rng, 2, 3, 6, 6)
    for choice in (True, False):
        folded, report = fold_and_compare(subject, {"x": x, "p": np.array(choice)})
    assert operators(folded) == {"If": 1, "Conv": 2} and report.folded == 1


@pytest.mark.parametrize(
    "text, reason",
    [
        (
            f"g (float[N,3,6,6] x) => (float[] y, float[] c) {{ c = Conv(x, w) y = {BN}(c, scale, bias, mean, var) }}",
            "the output of 'conv' has other readers",
        ),
        (
            f"g (float[N,3,6,6] x) => (float[] y) {{ c = Conv(x, w) n = {BN}(c, scale, bias, mean, var) y = Add(c, n) }}",
            "the output of 'conv' has other readers; forward, Add 'y' reads it",
        ),
        (
            f"g (float[N,3,6,6] x, float[4,3,3,3] w) => (float[] y) {{ c = Conv(x, w) y = {BN}(c, scale, bias, mean, var) }}",
            "input 'w' of Conv 'conv' is an overridable graph input",
        ),
        (
            f"g (float[N,3,6,6] x, float[4] mean) => (float[] y) {{ c = Conv(x, w) y = {BN}(c, scale, bias, mean, var) }}",
            "its mean 'mean' is an overridable graph input",
        ),
        (
            f"g (float[N,3,6,6] x, float[4] s) => (float[] y) {{ c = Conv(x, w) v = Abs(s) y = {BN}(c, scale, bias, mean, v) }}",
            "its variance 'v' is computed at run time",
        ),
        (
            f"g (float[N,3,6,6] x, float[4,3,3,3] k) => (float[] y) {{ c = Conv(x, k) y = {BN}(c, scale, bias, mean, var) }}",
            "input 'k' of Conv 'conv' is a graph input",
        ),
        (f"g (float[N,4,6,6] x) => (float[] y) {{ y = {BN}(x, scale, bias, mean, var) }}", "it normalises the graph input 'x'"),
        (
            f"g (float[N,4,6,6] x) => (float[] y) {{ r = Relu(x) y = {BN}(r, scale, bias, mean, var) }}",
            "it follows Relu 'r', not a convolution or matrix product",
        ),
        (
            f"g (float[N,3,6,6] x) => (float[] y) {{ c = Conv(x, w) y, m, v = {BN}<training_mode = 1>(c, "
            f"scale, bias, mean, var) }}",
            "it is in training mode: its statistics come from the batch",
        ),
    ],
)
def test_what_stays_and_why(text, reason):
    rng = np.random.default_rng(0)
    subject = model(text, conv_bn(rng))
    for node in subject.graph:
        if node.op_type == "Conv":
            node.name = "conv"
    result, report = fold(subject)
    assert [(item.verdict, item.into, item.reason) for item in report.items] == [("kept", None, reason)]
    assert operators(result) == operators(subject)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"var": np.float32([1, -1, 1, 1])}, "variance + epsilon is not positive in channel 1"),
        ({"var": np.float32([1, 1, np.nan, 1])}, "its parameters or statistics are not finite"),
        ({"mean": np.float32([np.inf, 1, 1, 1])}, "its parameters or statistics are not finite"),
        (
            {"var": np.float32([1e-38] * 4), "scale": np.float32([1e15] * 4), "epsilon": 0.0},
            "the weights of Conv 'c' would overflow or are not finite",
        ),
    ],
)
def test_statistics_that_would_spoil_finite_outputs(changes, reason):
    rng = np.random.default_rng(0)
    epsilon = changes.pop("epsilon", 1e-5)
    subject = model(CONV_BN, conv_bn(rng, **changes))
    subject.graph[1].attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon)
    result, report = fold(subject)
    assert [(item.verdict, item.reason) for item in report.items] == [("kept", reason)]
    assert operators(result) == {"Conv": 1, BN: 1}


def test_an_unused_batchnorm_goes():
    subject = model(
        f"g (float[N,4,6,6] x) => (float[N,4,6,6] y) {{ n = {BN}(x, scale, bias, mean, var) y = Relu(x) }}",
        statistics(np.random.default_rng(0), 4),
    )
    result, report = fold(subject)
    assert operators(result) == {"Relu": 1}
    assert (report.items[0].verdict, report.items[0].reason) == ("folded", "nothing reads its output")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_precisions(dtype):
    rng = np.random.default_rng(0)
    parameters = {name: array.astype(dtype) for name, array in conv_bn(rng).items()}
    subject = model(CONV_BN, parameters)
    for value in (*subject.graph.inputs, *subject.graph.outputs):
        value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    folded, report = fold(subject)
    assert report.folded == 1 and constant(folded, "w").dtype == constant(folded, "w_bias").dtype == dtype
    exact = conv(np.ones((1, 3, 6, 6)), constant(folded, "w"), constant(folded, "w_bias"))
    assert_close(
        exact,
        batchnorm(conv(np.ones((1, 3, 6, 6)), parameters["w"]), parameters),
        {np.float16: 2e-3, np.float64: 1e-12}.get(dtype, 2e-2),
    )
