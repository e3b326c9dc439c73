"""Calls of functions that no kernel serves run as their bodies, natively."""
from __future__ import annotations

import numpy as np
import onnx
import pytest

import infold


def model(*functions: str, body: str, types: str = "float[2,3] x", opset: int = 18) -> onnx.ModelProto:
    parts = "\n".join(f'<opset_import: ["": 17], domain: "own"> {text}' for text in functions)
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}, "own": 1]> g ({types}) => ({types.split("[")[0]}[N, M] y)'
        f" {{ {body} }} {parts}")


SHIFTED = "Shifted <by> (x) => (y) { c = Constant <value_float: float = @by> () s = Add(x, c) t = Abs(s) y = Mul(s, t) }"


def run(proto: onnx.ModelProto, x: np.ndarray) -> tuple[np.ndarray, infold.InferenceSession]:
    session = infold.InferenceSession(proto, infold.SessionOptions(native_only=x.dtype == np.float32))
    return session.run(None, {"x": x})[0], session


@pytest.mark.parametrize("opset", [17, 18])  # 18: the function has another operator set than the model, and stays a call
def test_an_unknown_function(opset):
    x = np.float32([[1, -2, 3], [4, 5, -6]])
    y, session = run(model(SHIFTED, body="a = own.Shifted <by = 1.5> (x) y = own.Shifted <by = -1.0> (a)", opset=opset), x)
    a = (x + 1.5) * abs(x + 1.5)
    np.testing.assert_allclose(y, (a - 1) * abs(a - 1), rtol=1e-6)
    assert not session.report.fallbacks and bool(session.model.functions) == (opset == 18)


def test_functions_that_call_functions():
    twice = "Twice (x) => (y) { a = own.Shifted <by = 2.0> (x) y = own.Shifted <by = 0.5> (a) }"
    proto = model(SHIFTED, twice, body="y = own.Twice(x)")
    proto.functions[1].opset_import.add(domain="own", version=1)
    x = np.float32([[0.25, -3, 1]] * 2)
    a = (x + 2) * abs(x + 2)
    np.testing.assert_allclose(run(proto, x)[0], (a + 0.5) * abs(a + 0.5), rtol=1e-6)


def test_a_data_type_that_the_operator_of_the_function_refuses():
    proto = model(body="s = Sigmoid(x) y = Mul(x, s)", types="double[2,3] x")
    x = np.float64([[1, -2, 3], [4, 5, -6]])
    y, session = run(proto, x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(y, wide / (1 + np.exp(-wide)), rtol=2e-3)
    assert [key[1] for key in session.model.functions] == ["Silu"]
    assert session.report.fallbacks == []  # the body's nodes have loops for it
