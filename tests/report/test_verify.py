"""verify says yes to what is right and no to what is wrong, and names where it begins."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import infold
from infold.errors import InvalidInputError
from infold.reference import run_float64
from infold.report.verify import verify

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
CHAIN = """g (float[N, 4] x) => (float[N, 3] y, float[N, 1] s)
    <float[4, 3] w = {{0.3, -0.1, 0.7, 1.1, 0.2, -0.6, 0.4, 0.9, -0.8, 0.5, 0.1, 0.6}}> {{
    h = Tanh (x)  m = MatMul (h, w)  a = {activation} (m)
    y = Softmax <axis = 1> (a)  s = ReduceMax <axes = [1]> (a) }}"""


def parse(text: str, opset: int = 17) -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}'))
    for node in model.graph:
        node.name = f"the_{node.op_type}"
    return model


def chain(activation: str = "Elu") -> ir.Model:
    return parse(CHAIN.format(activation=activation))


def _narrow(value):
    if isinstance(value, list):
        return [_narrow(item) for item in value]
    return value.astype(np.float32) if value.dtype == np.float64 else value


class Session:
    """A session that computes `wrong` instead of the model it is given, in float32 of the float64 run."""

    wrong: ir.Model | None = None

    def __init__(self, model, sess_options=None):
        self.model = self.wrong or model

    def _values(self, feeds, names):
        return {name: _narrow(value) for name, value in run_float64(self.model, feeds, names).items()}

    def run(self, names, feeds):
        return list(self._values(feeds, names).values())

    def run_intermediates(self, feeds, names):
        alive = {value.name for node in self.model.graph for value in node.outputs}
        return self._values(feeds, [name for name in names if name in alive])


@pytest.fixture
def session(monkeypatch):
    """Put `Session` in the place of infold's own; returns the class so that a test can make it wrong."""
    own = type("Session", (Session,), {})
    monkeypatch.setattr(infold, "InferenceSession", own, raising=False)
    return own


def test_a_right_result(session):
    report = verify(chain(), seed=3, layers=True)
    assert report.ok and report.first_divergent is None and report.onnxruntime[0].isdigit()
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["ok"] is True and data["first_divergent"] is None
    assert [output["name"] for output in data["outputs"]] == ["y", "s"]
    for output in data["outputs"]:
        assert {"name", "max_abs", "max_rel", "error", "onnxruntime_error"} <= output.keys()
        assert 0 < output["error"] < 1e-6 and 0 < output["onnxruntime_error"] < 1e-6 and output["max_abs"] < 1e-6
    assert [layer["node"] for layer in data["layers"]] == ["the_Tanh", "the_MatMul", "the_Elu", "the_Softmax", "the_ReduceMax"]
    assert all(0 < layer["error"] < 1e-6 for layer in data["layers"])
    assert report.summary().endswith("\nok") and "larger" in report.summary()


def test_a_wrong_node_is_named(session):
    session.wrong = chain("Selu")
    report = verify(chain("Elu"))
    assert not report.ok and report.first_divergent == "the_Elu" and report.layers is None
    assert not any(output.ok for output in report.outputs) and report.outputs[0].error > 1e-3
    assert "FAIL y" in report.summary() and "'the_Elu'" in report.summary() and report.summary().endswith("not ok")


def test_one_wrong_output_is_enough_and_folded_values_are_passed_over(session):
    session.wrong = parse("""g (float[N, 4] x) => (float[N, 3] y, float[N, 1] s)
        <float[4, 3] w = {0.3, -0.1, 0.7, 1.1, 0.2, -0.6, 0.4, 0.9, -0.8, 0.5, 0.1, 0.6}> {
        q = Tanh (x)  p = MatMul (q, w)  e = Elu (p)  y = Softmax <axis = 1> (e)  s = ReduceMean <axes = [1]> (e) }""")
    report = verify(chain())
    assert [output.ok for output in report.outputs] == [True, False]
    assert not report.ok and report.first_divergent == "the_ReduceMax"


def test_agreement_on_a_constant_does_not_hide_an_error_inside(session):
    text = "g (float[4] x) => (float[4] y) {{ a = {op} (x)  b = Sub (a, a)  y = Exp (b) }}"
    assert verify(parse(text.format(op="Tanh"))).ok
    report = verify(parse(text.format(op="Tanh")))
    assert report.outputs[0].trivial and "constant" in report.summary()
    session.wrong = parse(text.format(op="Sinh"))
    report = verify(parse(text.format(op="Tanh")))
    assert report.outputs[0].ok and not report.ok and report.first_divergent == "the_Tanh"


def test_special_values_in_the_wrong_place(session):
    text = "g (float[4] x) => (float[4] y) {{ a = {op} (x)  y = Identity (a) }}"
    feeds = {"x": np.array([-1, 0, 1, 2], np.float32)}
    right = verify(parse(text.format(op="Log")), feeds)
    assert right.ok and right.outputs[0].note is None
    session.wrong = parse("g (float[4] x) => (float[4] y) { b = Abs (x)  a = Log (b)  y = Identity (a) }")
    report = verify(parse(text.format(op="Log")), feeds)
    assert not report.ok and "NaN" in report.outputs[0].note and report.first_divergent == "the_Log"
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["ok"] is False


def test_another_shape(session):
    session.wrong = parse("g (float[2, 3] x) => (float[N, M] y) { y = Transpose (x) }")
    report = verify(parse("g (float[2, 3] x) => (float[N, M] y) { y = Neg (x) }"))
    assert not report.ok and report.to_dict()["outputs"][0]["error"] is None and "shape" in report.outputs[0].note


def test_without_onnxruntime(session, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = verify(chain())
    assert report.ok and "not installed" in report.onnxruntime and report.outputs[0].onnxruntime_error is None
    assert "float64 only" in report.summary()
    session.wrong = chain("Selu")
    assert verify(chain()).first_divergent == "the_Elu"


def test_onnxruntime_fails_without_a_word(session, monkeypatch):
    def fails(*_):
        raise RuntimeError

    monkeypatch.setattr("onnxruntime.InferenceSession.run", fails)
    assert verify(chain()).onnxruntime == "cannot run the model: RuntimeError"


def test_a_model_that_onnxruntime_refuses(session):
    model = parse("g (double[N, 4] x) => (double[N, 4] y) { y = Mish (x) }", opset=22)
    report = verify(model)
    if report.onnxruntime[0].isdigit():
        pytest.skip("this onnxruntime has Mish for double")
    assert report.ok and "cannot run the model" in report.onnxruntime


def test_onnxruntime_is_no_yardstick_where_it_computes_something_else(session):
    """Training mode: onnxruntime's outputs depend on momentum, so its error must not excuse infold's."""
    text = """g (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) 
        <float[3] s = {1, 2, 3}, float[3] b = {0, 1, 0}, float[3] m = {5, 5, 5}, float[3] v = {9, 9, 9}> {
        y%s = BatchNormalization <training_mode = %d, momentum = 0.9> (x, s, b, m, v) }"""
    right, wrong = parse(text % (", a, c", 1)), parse(text % ("", 0))
    assert verify(right, batch=4, training_mode="batch").outputs[0].ok
    session.wrong = wrong
    report = verify(right, batch=4, training_mode="batch")
    assert not report.ok and report.first_divergent == "the_BatchNormalization"


def test_inputs_are_completed(session):
    text = "g (float[N, C, H, W] x, float[N, 3, 1, 1] f) => (float[N, C, H, W] y) { y = Mul (x, f) }"
    seen = []
    session.run = lambda self, names, feeds: (
        seen.append({name: array.shape for name, array in feeds.items()}) or Session.run(self, names, feeds)
    )
    verify(parse(text), size=8)
    verify(parse(text), size=8, batch=2)
    verify(parse(text), {"x": np.ones((5, 3, 4, 4), np.float32)})
    verify(parse(text), shapes={"x": [1, 3, 6, 7]})
    assert [shapes["x"] for shapes in seen] == [(1, 3, 8, 8), (2, 3, 8, 8), (5, 3, 4, 4), (1, 3, 6, 7)]
    assert [shapes["f"][0] for shapes in seen] == [1, 2, 5, 1]
    first, again, other = (verify(parse(text), size=8, seed=seed).outputs[0].error for seed in (1, 1, 2))
    assert first == again != other
    with pytest.raises(InvalidInputError, match="'z'"):
        verify(parse(text), {"z": np.ones(1)}, size=8)


def test_integers_sequences_and_strings(session):
    report = verify(parse("g (float[2, 5] x) => (int64[2, 1] i, bool[2, 5] b) { i = ArgMax <axis = 1> (x)  b = Greater (x, x) }"))
    assert report.ok and report.outputs[0].error == 0
    pair = verify(parse("g (float[2, 5] x) => (seq(float[2, 5]) q) { y = Neg (x)  q = SequenceConstruct (x, y) }"))
    assert pair.ok and pair.outputs[0].max_abs is None


def test_a_long_graph_is_searched_in_few_runs(session):
    """Two branches of 300 nodes; the error lies deep in the one that comes first and shows in the sum alone."""
    branch = "".join(f"  a{i + 1} = {'Abs' if i == 123 else 'Neg'} (a{i})" for i in range(300))
    other = "".join(f"  b{i + 1} = Neg (b{i})" for i in range(300))
    text = f"g (float[4] a0, float[4] b0) => (float[4] y) {{ {branch} {other} y = Add (a300, b300) }}"
    model = parse(text)
    for index, node in enumerate(model.graph):
        node.name = f"n{index}"
    session.wrong = parse(text.replace("a124 = Abs", "a124 = Neg"))
    calls, run = [], Session.run_intermediates
    session.run_intermediates = lambda self, feeds, names: calls.append(len(names)) or run(self, feeds, names)
    report = verify(model, {"a0": np.array([-1, -2, 3, 4], np.float32), "b0": np.zeros(4, np.float32)})
    assert report.first_divergent == "n123"
    assert len(calls) == 2 and sum(calls) < 120


def test_the_real_session_on_a_real_network():
    report = verify(LIGHT / "light_squeezenet.onnx", threads=1)
    assert report.ok, report.summary()
