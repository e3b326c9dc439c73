"""float16 and bfloat16 models: computed in float32, rounded where they end or cast."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest

import infold

TEXT = """<ir_version: 10, opset_import: ["": 21]>
net ({half}[1, 3, 8, 8] x, float[1] other) => ({half}[1, 4, 8, 8] y, {half}[1, 3, 8, 8] same, float[1, 4, 8, 8] wide,
                                               {half}[2] constant)
{{
    c = Conv <pads = [1, 1, 1, 1]> (x, w)
    y = Relu(c)
    same = Identity(x)
    wide = Cast <to = 1> (y)
}}"""


def model(half: str) -> onnx.ModelProto:
    made = onnx.parser.parse_model(TEXT.format(half=half))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, half.upper()))
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(dtype)
    made.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 2], dtype), "constant"))
    return made


@pytest.mark.parametrize(("half", "dtype"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)])
def test_a_convolution(half, dtype):
    import torch

    made = model(half)
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(dtype)
    session = infold.InferenceSession(made)
    y, same, wide, constant = session.run(None, {"x": x, "other": np.zeros(1, np.float32)})
    assert session.report.fallbacks == [] and session.get_inputs()[0].type == f"tensor({half})"
    weights = onnx.numpy_helper.to_array(made.graph.initializer[0]).astype(np.float64)
    expected = torch.conv2d(torch.tensor(x.astype(np.float64)), torch.tensor(weights), padding=1).relu().numpy()
    assert y.dtype == same.dtype == constant.dtype == dtype and wide.dtype == np.float32
    np.testing.assert_allclose(y.astype(float), expected, rtol=0.51 * float(ml_dtypes.finfo(dtype).eps))  # rounded once
    np.testing.assert_allclose(wide, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(constant, np.array([1, 2], dtype))


def test_a_cast_rounds():
    made = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
        net (float[3] x) => (float[3] y, float16[3] h) { h = Cast <to = 10> (x) d = Mul(h, h) y = Cast <to = 1> (d) }""")
    x = np.array([1.0001, 300.1, 7e4], np.float32)
    session = infold.InferenceSession(made)
    y, h = session.run(None, {"x": x})
    assert session.report.fallbacks == []
    np.testing.assert_array_equal(h, x.astype(np.float16))
    np.testing.assert_array_equal(y, x.astype(np.float16).astype(np.float32) ** 2)


def test_bodies_too():
    made = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
        net (float16[2] x, int64 n, bool yes) => (float16[2] y) {
            half = Constant <value = float[1] {0.5}> () more = Cast <to = 10> (half)
            y = Loop <body = once (int64 i, bool c, float16[2] s) => (bool d, float16[2] t) { d = Identity(c) t = Add(s, more) }>
                (n, yes, x)
        }""")
    session = infold.InferenceSession(made)
    (y,) = session.run(None, {"x": np.array([1, 2], np.float16), "n": np.array(5), "yes": np.array(True)})
    assert session.report.fallbacks == [] and y.dtype == np.float16
    np.testing.assert_array_equal(y, np.array([3.5, 4.5], np.float16))


def test_an_export_of_torch():
    torch = pytest.importorskip("torch")
    from io import BytesIO

    torch.manual_seed(0)
    body = [torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.SiLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    module = torch.nn.Sequential(*body, torch.nn.LayerNorm(8), torch.nn.Linear(8, 5), torch.nn.Softmax(-1)).eval().half()
    x, file = torch.randn(2, 3, 12, 12).half(), BytesIO()
    torch.onnx.export(module, (x,), file, dynamo=False, input_names=["x"])
    session = infold.InferenceSession(file.getvalue())
    (y,) = session.run(None, {"x": x.numpy()})
    assert session.report.fallbacks == [] and session.report.fold.remaining == 0
    np.testing.assert_allclose(y, module.double()(x.double()).detach().numpy(), rtol=1e-3)


@pytest.mark.parametrize("pair", [("float", "double"), ("int32", "int64")])
@pytest.mark.parametrize("op", ["Add", "Max", "Concat <axis = 0>", "MatMul", "Where"])
def test_mixed_operands_are_refused(pair, op):
    first = "condition, " if op == "Where" else ""
    made = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 21]>
        net (bool[2, 2] condition, {pair[0]}[2, 2] x, {pair[1]}[2, 2] y) => ({pair[0]} z) {{ z = {op} ({first}x, y) }}""")
    feeds = {v.name: np.ones((2, 2), onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)) for v in made.graph.input}
    with pytest.raises(infold.InvalidModelError, match=op.split()[0]):
        infold.InferenceSession(made).run(None, feeds)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("between", ["h = Relu(x)", "t = Neg(x) h = Identity(t)"])
def test_halves_beside_float32_are_refused(half, between):
    """Also where the file says nothing of the types between."""
    text = f"""<ir_version: 10, opset_import: ["": 21]> net ({half}[3] x, float[3] w) => (float[3] y)
        {{ {between} y = Add(h, w) }}"""
    with pytest.raises(infold.InvalidModelError, match=rf"Add.*'h' is {half} and 'w' is float32, which must be of one type"):
        infold.InferenceSession(onnx.parser.parse_model(text))
    right = onnx.parser.parse_model(text.replace("y = Add(h, w)", "f = Cast <to = 1> (h) y = Add(f, w)"))
    assert infold.InferenceSession(right)
