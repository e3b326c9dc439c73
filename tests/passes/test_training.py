"""What becomes of a BatchNormalization in training mode: refused, given its running statistics, or left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from exports import export
from passes_harness import assert_close, batchnorm, fold_and_compare, model, normal, operators, run, statistics

import infold
from infold.errors import UnsupportedError
from infold.passes import training
from infold.reference import run_float64

FORMS = [  # opset, attributes, outputs besides the first
    (15, "<training_mode = 1, momentum = 0.5>", ["m", "v"]),
    (14, "<training_mode = 1>", []),
    (9, "<momentum = 0.5>", ["m", "v", "sm", "sv"]),
    (7, "", ["m", "v", "sm", "sv"]),
    (6, "", []),
    (6, "<is_test = 0>", ["m", "v", "sm", "sv"]),
    (1, "<is_test = 0, consumed_inputs = [0, 0, 0, 1, 1]>", []),
]


def net(opset: int, attributes: str, outputs: list[str], returned: str = "y") -> ir.Model:
    names = ", ".join(["y", *outputs])
    subject = model(
        f"g (float[N,3,4,4] x) => ({returned}) {{ {names} = BatchNormalization {attributes} (x, scale, bias, mean,"
        " var) }".replace("(y)", "(float[N,3,4,4] y)").replace(
            "(y, m, v)", "(float[N,3,4,4] y, float[3] m, float[3] v)"
        ),
        statistics(np.random.default_rng(0), 3),
        opset=opset,
    )
    subject.graph.node(0).name = "norm"
    return subject


@pytest.mark.parametrize("opset, attributes, outputs", FORMS)
def test_every_form_is_refused_with_the_way_out(opset: int, attributes: str, outputs: list[str]) -> None:
    subject = net(opset, attributes, outputs)
    with pytest.raises(UnsupportedError, match=r"'norm' is in training mode.*eval\(\).*'running'.*'batch'"):
        infold.InferenceSession(subject)
    assert training.resolve(subject, "batch") is subject


@pytest.mark.parametrize("opset, attributes, outputs", FORMS)
def test_running_statistics(opset: int, attributes: str, outputs: list[str]) -> None:
    subject, x = net(opset, attributes, outputs), normal(np.random.default_rng(1), 2, 3, 4, 4)
    before = ir.to_proto(subject).SerializeToString(deterministic=True)
    resolved = training.resolve(subject, "running")
    assert ir.to_proto(subject).SerializeToString(deterministic=True) == before
    onnx.checker.check_model(ir.to_proto(resolved))
    expected = batchnorm(x, statistics(np.random.default_rng(0), 3))
    assert_close(run_float64(resolved, {"x": x})["y"], expected)
    assert_close(
        infold.InferenceSession(subject, infold.SessionOptions(training_mode="running")).run(None, {"x": x})[0],
        expected,
    )
    assert training.resolve(resolved, "error") is resolved


@pytest.mark.parametrize("opset, attributes, outputs", FORMS)
def test_statistics_of_the_batch(opset: int, attributes: str, outputs: list[str]) -> None:
    subject, x = net(opset, attributes, outputs), normal(np.random.default_rng(1), 2, 3, 4, 4)
    own = {
        **statistics(np.random.default_rng(0), 3),
        "mean": x.mean((0, 2, 3), np.float64),
        "var": x.var((0, 2, 3), np.float64),
    }
    session = infold.InferenceSession(subject, infold.SessionOptions(training_mode="batch"))
    assert_close(session.run(None, {"x": x})[0], batchnorm(x, own))


def test_outputs_that_are_read_become_the_running_statistics() -> None:
    subject = net(15, "<training_mode = 1>", ["m", "v"], "y, m, v")
    resolved = training.resolve(subject, "running")
    x, given = normal(np.random.default_rng(1), 2, 3, 4, 4), statistics(np.random.default_rng(0), 3)
    found = run(resolved, {"x": x})
    np.testing.assert_array_equal(found["m"], given["mean"])
    np.testing.assert_array_equal(found["v"], given["var"])
    assert_close(found["y"], batchnorm(x, given))


def test_an_inference_model_is_left_alone_and_a_mode_that_is_none_refused() -> None:
    subject = net(15, "", [])
    for mode in training.MODES:
        assert training.resolve(subject, mode) is subject
    with pytest.raises(UnsupportedError, match=r"'eval'.*error, running, batch"):
        training.resolve(subject, "eval")


def test_several_are_counted() -> None:
    subject = model(
        """g (float[N,3,4,4] x) => (float[N,3,4,4] z) {
        y, m, v = BatchNormalization <training_mode = 1> (x, scale, bias, mean, var)
        z, n, w = BatchNormalization <training_mode = 1> (y, scale, bias, mean, var) }""",
        statistics(np.random.default_rng(0), 3),
    )
    with pytest.raises(UnsupportedError, match=r"'y' \(and 1 more\)"):
        training.resolve(subject, "error")


@pytest.mark.parametrize("how, opset", [("script", 17), ("traced", 18)])
def test_a_standardised_weight_is_no_batch(how: str, opset: int) -> None:
    """Normaliser-free networks standardise their weights with a BatchNormalization in training mode."""
    torch = pytest.importorskip("torch")

    class ScaledStdConv(torch.nn.Conv2d):  # as timm's
        def forward(self, x):
            weight = torch.nn.functional.batch_norm(
                self.weight.reshape(1, len(self.weight), -1), None, None, weight=self.gain, training=True, momentum=0.0)
            return self._conv_forward(x, weight.reshape_as(self.weight), self.bias)

    torch.manual_seed(0)
    layer = ScaledStdConv(4, 6, 3)
    layer.gain = torch.nn.Parameter(torch.rand(6) + 0.5)
    subject = export(layer.eval(), torch.randn(2, 4, 7, 7), how, opset, dynamic=(0,))
    training.resolve(subject, "error")
    result = fold_and_compare(subject, {"x": normal(np.random.default_rng(0), 2, 4, 7, 7)})[0]
    assert operators(result) == {"Conv": 1}
