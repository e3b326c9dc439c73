"""Whole models in float64: they agree with onnxruntime to float32 rounding, and nothing inside rounds to float32."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from light import LIGHT, with_random_weights
from reference_harness import close

from infold.errors import InvalidInputError, ShapeError, UnsupportedError
from infold.importers.onnx import load
from infold.reference import Float64Model, NodeRunner, run_float64

onnxruntime.set_default_logger_severity(4)


def parse(text: str, opset: int = 17) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}'))


@pytest.mark.parametrize("name", ["densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet"])
def test_light_models_agree_with_onnxruntime(name, monkeypatch):
    proto = with_random_weights(LIGHT / f"light_{name}.onnx")
    rounded, run = [], NodeRunner.run

    def spy(self, *args):
        results = run(self, *args)
        rounded.extend(self.name for result in results if isinstance(result, np.ndarray) and result.dtype == np.float32)
        return results

    monkeypatch.setattr(NodeRunner, "run", spy)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {value.name: np.random.default_rng(1).standard_normal(value.shape).astype(np.float32) for value in session.get_inputs()}
    found, model = session.run(None, feeds), Float64Model(load(proto))
    results = model.run(feeds)
    for value, expected in zip(session.get_outputs(), found):
        result = results[value.name]
        assert result.dtype == np.float64 and np.ptp(result) > 1e-3 * np.abs(result).max()
        assert np.abs(result - expected).max() <= 1e-4 * np.abs(result).max()
    assert not rounded


@pytest.mark.zoo
def test_a_network_in_float64_is_torchs_in_float64(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.GELU(),
        torch.nn.Conv2d(8, 8, 5, padding=2, groups=8),
        torch.nn.BatchNorm2d(8),
        torch.nn.Mish(),
        torch.nn.MaxPool2d(3, 2, 1),
        torch.nn.ConvTranspose2d(8, 4, 4, 2, 1),
        torch.nn.GroupNorm(2, 4),
        torch.nn.SiLU(),
        torch.nn.Upsample(scale_factor=2, mode="bilinear"),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 5),
        torch.nn.LayerNorm(5),
        torch.nn.Softmax(1),
    )
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        net(x)  # running statistics that are not the initial ones
        net.eval()
        torch.onnx.export(
            net, (x,), tmp_path / "net.onnx", input_names=["x"], output_names=["y"], dynamo=True, optimize=False, verbose=False
        )  # its optimiser would fold BatchNorm and round
        expected = net.double()(x.double())
    # the attributes epsilon (1e-5) are float32 in ONNX; rounding to float32 anywhere would leave 1e-7
    close(run_float64(load(tmp_path / "net.onnx"), {"x": x.numpy()})["y"], expected, 1e-9)


WIDE = """g (float[2, 2] x, bool c) => (float[2, 2] y) <float[2, 2] w = {1.1, 2.2, 3.3, 4.4}> {
    shape = Shape (x)
    k = ConstantOfShape <value = float[1] {0.1}> (shape)
    h = Cast <to = 1> (x)
    t = Constant <value = float[1] {0.3}> ()
    u = If (c) <then_branch = b () => (float[2, 2] p) <float[1] v = {0.7}> {
                q = Add (h, v)  r = Cast <to = 10> (q)  p = Cast <to = 1> (r) },
                else_branch = e () => (float[2, 2] s) { s = Identity (h) }>
    m = MatMul (u, w)  n = Mul (m, k)  y = Add (n, t) }"""


def test_everything_is_widened_also_below():
    x = np.array([[1 / 3, 1 / 7], [1 / 9, 2 / 3]], np.float32)
    f32 = lambda *values: np.array(values, np.float32).astype(np.float64)  # noqa: E731
    weights = f32(1.1, 2.2, 3.3, 4.4).reshape(2, 2)
    expected = (x.astype(np.float64) + f32(0.7)) @ weights * f32(0.1) + f32(0.3)
    model = Float64Model(parse(WIDE))
    results = model.run({"x": x, "c": np.array(True)}, ["y", "u", "shape", "w"])
    close(results["y"], expected, 1e-15)
    assert results["shape"].dtype == np.int64 and np.array_equal(results["w"], weights)
    assert np.array_equal(model.run({"x": x, "c": np.array(False)}, ["u"])["u"], x.astype(np.float64))


def test_functions_run_and_the_model_is_left_alone():
    text = """<ir_version: 8, opset_import: ["": 17, "infold": 1]>
    g (float[2] x) => (float[2] y) { h = infold.Silu (x)  y = Neg (h) }
    <domain: "infold", opset_import: ["": 17]> Silu (a) => (b) { s = Sigmoid (a)  b = Mul (a, s) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    x = np.array([0.3, -2.5])
    results = run_float64(model, {"x": x}, ["y", "h"])
    close(results["h"], x / (1 + np.exp(-x)), 1e-15)
    assert np.array_equal(results["y"], -results["h"]) and len(model.functions) == 1


def test_values_die_after_their_last_use(monkeypatch):
    model = Float64Model(
        parse("g (float[n] x) => (float[n] y) { a = Neg (x)  b = Abs (a)  c = Add (a, b)  d = Neg (c)  y = Exp (d)  z = Log (x) }")
    )
    steps, run = [], NodeRunner.run
    import weakref

    alive: dict[str, weakref.ref] = {}

    def spy(self, inputs, scope=None):
        steps.append((self.outputs[0], sorted(name for name, ref in alive.items() if ref() is not None)))
        results = tuple(np.array(result) for result in run(self, inputs, scope))
        alive.update((name, weakref.ref(result)) for name, result in zip(self.outputs, results))
        return results

    monkeypatch.setattr(NodeRunner, "run", spy)
    assert set(model.run({"x": np.ones(3)}, ["y", "b"])) == {"y", "b"}
    assert steps == [("a", []), ("b", ["a"]), ("c", ["a", "b"]), ("d", ["b", "c"]), ("y", ["b", "d"])]


def test_float16_and_bfloat16_models_are_widened_too():
    for dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        name = dtype.name.lower()
        model = parse(f"g ({name}[2] x) => ({name}[2] y) {{ h = Mul (x, x)  y = Cast <to = {dtype.value}> (h) }}")
        x = np.array([0.3, 0.7]).astype(dtype.numpy())
        assert np.array_equal(run_float64(model, {"x": x})["y"], x.astype(np.float64) ** 2)


def test_errors():
    model = Float64Model(parse("g (float[2, 3] a, float[3, 2] b) => (float[2, 2] y) { y = MatMul (a, b) }"))
    a, b = np.ones((2, 3)), np.ones((3, 2))
    with pytest.raises(InvalidInputError, match="missing input: 'b'"):
        model.run({"a": a})
    with pytest.raises(InvalidInputError, match="no such input: 'q'"):
        model.run({"a": a, "b": b, "q": a})
    with pytest.raises(InvalidInputError, match="no such value: 'h'"):
        model.run({"a": a, "b": b}, ["h"])
    with pytest.raises(ShapeError, match=r"node 'y' \(MatMul\)"):
        model.run({"a": a, "b": a})
    odd = parse("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    odd.graph.node(0).domain = "org.other"
    odd.graph.opset_imports["org.other"] = 1
    with pytest.raises(UnsupportedError, match=r"org.other::Relu"):
        Float64Model(odd)
