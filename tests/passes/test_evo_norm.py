"""EvoNorms of timm, about ten operators each, become one call: exact in onnxruntime and on infold's session."""

from __future__ import annotations

import numpy as np
import pytest
from exports import HOW, export, timm_layers
from passes_harness import assert_close, fold_and_compare, model, normal, operators

import infold
from infold import passes
from infold.reference import Float64Model

pytestmark = [pytest.mark.zoo, pytest.mark.timeout(300)]


def evo_norm(kind: str, channels: int = 12, training: bool = False, **options):
    import torch

    torch.manual_seed(0)
    module = getattr(timm_layers("evo_norm"), f"EvoNorm2d{kind}")(channels, **options).train(training)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    for buffer in module.buffers():
        torch.nn.init.uniform_(buffer, 0.5, 2)
    return module


def check(module, how: str, opset: int, name: str) -> None:
    import torch

    x = torch.randn(3, 12, 5, 7) * 2 + 1
    subject = export(module, x, how, opset)
    prepared, _ = fold_and_compare(subject, {"x": x.numpy()}, rule=passes.prepare, tolerance=4e-6)
    assert operators(prepared) == {f"infold::{name}": 1}
    expected = Float64Model(subject).run({"x": x.numpy()})["y"]
    session = infold.InferenceSession(subject)
    assert_close(session.run(None, {"x": x.numpy()})[0], expected, 1e-6)
    assert not session.report.fallbacks
    once_more, _ = passes.prepare(prepared)  # what the function's body says is recognised again
    assert operators(once_more) == operators(prepared)


@pytest.mark.parametrize("how, opset", HOW)
def test_s0(how, opset):
    check(evo_norm("S0", groups=4), how, opset, "EvoNormS0")


@pytest.mark.parametrize("kind, groups", [("S0a", 4), ("S1", 4), ("S0", 1), ("S0", 12)])
def test_relatives_of_s0(kind, groups):
    check(evo_norm(kind, groups=groups), "script", 17, "EvoNormS0")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("how, opset", HOW[1:3])
def test_b0(how, opset, training):
    check(evo_norm("B0", training=training), how, opset, "EvoNormB0")


@pytest.mark.parametrize("kind", ["S0", "B0"])
@pytest.mark.parametrize("how, opset, dynamic", [("script", 17, (0, 2, 3)), ("traced", 18, (0,))])
def test_open_dimensions(kind, how, opset, dynamic):
    import torch

    x = torch.randn(3, 12, 5, 7)
    subject = export(evo_norm(kind, groups=4), x, how, opset, dynamic)
    prepared, _ = fold_and_compare(subject, {"x": x.numpy()}, rule=passes.prepare, tolerance=4e-6)
    assert operators(prepared) == {f"infold::EvoNorm{kind}": 1}


SMALL = """
    m = ReduceMean <axes = [2, 3]> (x) d = Sub(x, m) q = Mul(d, d) w = ReduceMean <axes = [2, 3]> (q)
    u = Mul(x, v) s = Sigmoid(u) n = Mul(x, s) e = Add(w, epsilon) r = Sqrt(e) z = Div(n, r)
"""
TAIL = "g = Mul(z, gamma) y = Add(g, beta)"


def prepared(body: str, outputs: str = "float[2,6,4,3] y", shape: str = "2,6,4,3"):
    rng = np.random.default_rng(0)
    weights = {name: normal(rng, 6, 1, 1) for name in ("v", "gamma", "beta")}
    subject = model(f"g (float[{shape}] x) => ({outputs}) {{ {body} }}",
                    {**weights, "epsilon": np.float32(1e-3), "ones": np.ones((6, 1, 1), np.float32), "two": np.float32(2),
                     "pixels": normal(rng, 4, 3)}, opset=13)
    return fold_and_compare(subject, {"x": normal(rng, 2, 6, 4, 3)}, rule=passes.prepare, tolerance=1e-5)[0]


def test_written_out():
    result = prepared(SMALL + TAIL)
    (call,) = result.graph
    assert operators(result) == {"infold::EvoNormS0": 1} and call.attributes["groups"].as_int() == 6
    assert [value.shape.numpy() for value in call.inputs[1:]] == [(6,)] * 3


@pytest.mark.parametrize("change, to", [
    ("e = Add(w, epsilon) r = Sqrt(e)", "q2 = Sqrt(w) r = Add(q2, epsilon)"),
    ("q = Mul(d, d)", "q = Mul(d, x)"),
    ("u = Mul(x, v)", "u = Mul(d, v)"),
    ("u = Mul(x, v)", "u = Mul(x, pixels)"),
    ("w = ReduceMean <axes = [2, 3]> (q)", "w = ReduceMean <axes = [3]> (q)"),
    ("e = Add(w, epsilon)", "e = Add(w, ones_)"),
    ("z = Div(n, r)", "z = Mul(n, r)"),
])
def test_near_misses(change, to):
    assert change in SMALL
    body = SMALL.replace(change, to.replace("ones_", "gamma2")) + TAIL
    body = "gamma2 = Mul(gamma, gamma) " + body if "gamma2" in body else body
    assert "infold::EvoNormS0" not in operators(prepared(body))


def test_a_second_reader_inside():
    result = prepared(SMALL + TAIL, outputs="float[2,6,4,3] y, float[2,6,1,1] r")
    assert "infold::EvoNormS0" not in operators(result)


def test_a_variance_that_is_not_biased_goes_into_the_weights():
    body = SMALL.replace("e = Add(w, epsilon)", "f = Mul(w, two) e = Add(f, epsilon)") + TAIL
    (call,) = prepared(body).graph
    assert call.attributes["epsilon"].as_float() == pytest.approx(5e-4)
