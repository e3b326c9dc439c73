"""Every illness is found, named and explained on the layer that has it; healthy networks raise no alarm."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import infold
from infold.report.doctor import DoctorReport, Finding

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
BN = "BatchNormalization"
ODD_NUMBERS = [0, 1, -1, np.nan, np.inf, -np.inf, 1e-45, 3e38, -1e-5, 1e-30]


def healthy(seed: int = 0, channels: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = {
        "s": rng.uniform(0.5, 1.5, channels),
        "b": rng.normal(size=channels),
        "m": rng.normal(size=channels),
        "v": rng.uniform(0.3, 3, channels),
    }
    return {name: array.astype(np.float32) for name, array in values.items()}


def build(text: str, constants: dict[str, np.ndarray], opset: int = 17, producer: str = "") -> ir.Model:
    """A model in ONNX's text form; each node is named after its first output."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')
    proto.producer_name = producer
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    for node in proto.graph.node:
        node.name = node.output[0]
    return ir.from_proto(proto)


def single(changes: dict[str, np.ndarray] | None = None, attributes: str = "", opset: int = 17, outputs: str = "") -> ir.Model:
    return build(
        f"g (float[N,6,4,4] x) => (float[N,6,4,4] y) {{ y{outputs} = {BN} {attributes} (x, s, b, m, v) }}",
        healthy() | (changes or {}),
        opset,
    )


def kinds(report: DoctorReport) -> list[tuple[str, str]]:
    return [(finding.kind, finding.node) for finding in report.findings]


def only(model: ir.Model, kind: str, severity: str, node: str = "y") -> Finding:
    report = infold.doctor(model)
    assert kinds(report) == [(kind, node)]
    finding = report.findings[0]
    assert finding.severity == severity and len(finding.message) > 40 and len(finding.remedy) > 20
    assert report.ok == (severity != "error")
    return finding


def with_value(name: str, value: float, *channels: int) -> dict[str, np.ndarray]:
    array = healthy()[name].copy()
    array[list(channels)] = value
    return {name: array}


@pytest.mark.parametrize(
    "opset, attributes, outputs",
    [
        (15, "<training_mode = 1>", ", p, q"),
        (14, "<training_mode = 1>", ""),
        (9, "", ", p, q, r, t"),
        (7, "", ", p, q, r, t"),
        (6, "<is_test = 0>", ""),
        (1, "<consumed_inputs = [0, 0, 0, 1, 1]>", ""),
    ],
)
def test_training_mode_in_every_form(opset: int, attributes: str, outputs: str) -> None:
    finding = only(single(None, attributes, opset, outputs), "training-mode", "error")
    assert "neighbours" in finding.message and "model.eval()" in finding.remedy


@pytest.mark.parametrize("opset, attributes", [(15, ""), (9, "<momentum = 0.5>"), (7, ""), (6, "<is_test = 1>")])
def test_inference_in_every_form(opset: int, attributes: str) -> None:
    assert infold.doctor(single(None, attributes, opset)).findings == []


def test_the_torch_exporter_in_training_mode() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.ReLU()).train()
    net[1].running_mean += 1
    file = io.BytesIO()
    torch.onnx.export(net, (torch.randn(2, 3, 8, 8),), file, dynamo=False, training=torch.onnx.TrainingMode.TRAINING)
    report = infold.doctor(file.getvalue())
    assert [kind for kind, _ in kinds(report)] == ["training-mode", "redundant-bias"] and not report.ok
    with pytest.raises(infold.UnsupportedError, match="training mode"):
        infold.InferenceSession(file.getvalue())


@pytest.mark.parametrize("dynamo", [False, True])
def test_the_torch_exporter_without_tracked_statistics(dynamo: bool) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, bias=False), torch.nn.BatchNorm2d(5, track_running_stats=False)).eval()
    x = (torch.randn(2, 3, 8, 8),)
    if dynamo:
        model = torch.onnx.export(net, x, dynamo=True, optimize=False, verbose=False).model_proto
    else:
        file = io.BytesIO()
        torch.onnx.export(net, x, file, dynamo=False)
        model = file.getvalue()
    report = infold.doctor(model)
    assert [kind for kind, _ in kinds(report)] == ["training-mode"] * (not dynamo) + ["no-tracked-statistics"]
    assert report.layers[0].channels == 5 and report.layers[0].mean_of_mean is None


def test_statistics_computed_from_the_data() -> None:
    text = f"""g (float[N,6,4,4] x) => (float[N,6,4,4] y) {{
        p = ReduceMean <axes = [0, 2, 3], keepdims = 0> (x)  d = Mul (x, x)
        q = ReduceMean <axes = [0, 2, 3], keepdims = 0> (d)  y = {BN} (x, s, b, p, q) }}"""
    constants = {name: array for name, array in healthy().items() if name in "sb"}
    assert "batch" in only(build(text, constants), "no-tracked-statistics", "warning").message


def test_statistics_that_may_be_overridden_or_are_inputs() -> None:
    text = f"g (float[N,6,4,4] x, float[6] m, float[6] v) => (float[N,6,4,4] y) {{ y = {BN} (x, s, b, m, v) }}"
    finding = only(build(text, healthy()), "not-constant", "warning")
    assert "its mean is an overridable graph input" in finding.message and "its variance" in finding.message
    constants = {name: array for name, array in healthy().items() if name in "sb"}
    assert "is a graph input" in only(build(text, constants), "not-constant", "warning").message


def test_constants_that_only_look_computed_are_no_finding() -> None:
    text = f"g (float[N,6,4,4] x) => (float[N,6,4,4] y) {{ n = Identity (m)  w = Mul (v, two)  y = {BN} (x, s, b, n, w) }}"
    report = infold.doctor(build(text, healthy() | {"two": np.float32([2])}))
    assert report.findings == []
    assert report.layers[0].mean_of_var == pytest.approx(2 * healthy()["v"].mean(), rel=1e-6)


@pytest.mark.parametrize("variance", [0, 1])
def test_never_updated(variance: int) -> None:
    changes = {"m": np.zeros(6, np.float32), "v": np.full(6, variance, np.float32)}
    assert "new layer" in only(single(changes), "never-updated", "warning").message


@pytest.mark.parametrize("name, value", [("s", np.nan), ("b", np.inf), ("m", -np.inf), ("v", np.nan), ("v", np.inf)])
def test_not_finite(name: str, value: float) -> None:
    what = {"s": "scale", "b": "bias", "m": "mean", "v": "variance"}[name]
    assert f"1 channels of its {what}" in only(single(with_value(name, value, 2)), "not-finite", "error").message


@pytest.mark.parametrize("value, words", [(-1.0, "not positive in 1 of 6"), (-1e-5, "not positive"), (-1e-6, "negative in 1 of 6")])
def test_negative_variance(value: float, words: str) -> None:
    assert words in only(single(with_value("v", value, 3), "<epsilon = 0.00001>"), "negative-variance", "error").message


@pytest.mark.parametrize("value", [0.0, 1e-12, 5e-45])
def test_tiny_variance(value: float) -> None:
    assert "2 of 6 channels" in only(single(with_value("v", value, 1, 4)), "tiny-variance", "warning").message


def test_huge_gain() -> None:
    changes = with_value("v", 1e-4, 2) | with_value("s", 50, 2)
    assert "in channel 2" in only(single(changes), "huge-gain", "warning").message


def test_dead_channels() -> None:
    assert "3 of 6" in only(single(with_value("s", 0, 0, 2, 5)), "dead-channels", "info").message
    assert "every channel" in only(single({"s": np.zeros(6, np.float32)}), "constant-layer", "warning").message


def test_odd_epsilon() -> None:
    assert "epsilon is 0:" in only(single(None, "<epsilon = 0.0>"), "odd-epsilon", "warning").message
    assert "0.1" in only(single(None, "<epsilon = 0.1>"), "odd-epsilon", "warning").message


def row(epsilons: list[str], producer: str = "") -> ir.Model:
    """BatchNormalizations with a Tanh between them."""
    body = "".join(f"t{i} = Tanh (y{i})  y{i + 1} = {BN} {e} (t{i}, s, b, m, v)  " for i, e in enumerate(epsilons))
    return build(f"g (float[N,6,4,4] y0) => (float[N,6,4,4] y{len(epsilons)}) {{ {body} }}", healthy(), producer=producer)


def test_an_epsilon_unlike_its_siblings() -> None:
    model = row(["<epsilon = 0.001>"] * 6 + [""] + ["<epsilon = 0.001>"] * 6)
    assert "no epsilon is given" in only(model, "odd-epsilon", "warning", "y7").message
    assert infold.doctor(row(["<epsilon = 0.001>"] * 4 + [""] * 4)).findings == []


def test_an_epsilon_that_a_conversion_left_out() -> None:
    assert kinds(infold.doctor(row(["", ""], "keras2onnx"))) == [("missing-epsilon", "y1"), ("missing-epsilon", "y2")]
    assert infold.doctor(row(["", ""], "pytorch")).findings == []


def test_statistics_per_position() -> None:
    constants = {name: np.resize(array, (6, 4, 4)) for name, array in healthy().items()}
    model = build(f"g (float[N,6,4,4] x) => (float[N,6,4,4] y) {{ y = {BN} <spatial = 0> (x, s, b, m, v) }}", constants, opset=8)
    only(model, "not-spatial", "warning")


TWINS = f"""g (float[N,3,8,8] x) => (float[N,6,8,8] y) {{
    c = Conv (x, w)  p = {BN} %s (c, s, b, m, v)  r = Relu (p)
    d = Conv (x, u)  q = {BN} (d, s2, b2, m2, v2)  y = Add (r, q) }}"""


def twins(attributes: str = "", changes: dict[str, np.ndarray] | None = None, text: str = TWINS) -> ir.Model:
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(size=(6, 3, 1, 1)).astype(np.float32) for name in ("w", "u")}
    other = {f"{name}2": array for name, array in healthy(2).items()}
    return build(text % attributes, healthy() | other | weights | (changes or {}))


def test_a_branch_frozen_and_its_twin_not() -> None:
    assert infold.doctor(twins()).findings == []
    assert kinds(infold.doctor(twins("<training_mode = 1>"))) == [("training-mode", "p"), ("frozen-twin", "q")]
    untouched = {"m2": np.zeros(6, np.float32), "v2": np.ones(6, np.float32)}
    report = infold.doctor(twins("", untouched))
    assert sorted(kinds(report)) == [("frozen-twin", "q"), ("never-updated", "q")]


def test_a_twin_by_shared_weights() -> None:
    text = TWINS.replace("Conv (x, u)", "Conv (x, w)").replace("y = Add (r, q)", "h = Conv (q, k)  y = Add (r, h)")
    eye = {"k": np.eye(6, dtype=np.float32)[:, :, None, None]}
    assert infold.doctor(twins("", eye, text)).findings == []
    report = infold.doctor(twins("<training_mode = 1>", eye, text))
    assert kinds(report) == [("training-mode", "p"), ("frozen-twin", "q")]


def test_biased_beside_unbiased_variance() -> None:
    n, given = 49, healthy()
    changes = {"m2": given["m"], "v2": given["v"] * np.float32(n / (n - 1))}
    report = infold.doctor(twins("", changes))
    assert kinds(report) == [("bias-mixup", "q")] and "n = 49" in report.findings[0].message
    assert infold.doctor(twins("", {"m2": given["m"], "v2": given["v"]})).findings == []


def test_two_in_a_row_and_a_redundant_bias() -> None:
    text = f"""g (float[N,3,8,8] x) => (float[N,6,8,8] y) {{
        c = Conv (x, w, b)  p = {BN} (c, s, b, m, v)  y = {BN} (p, s2, b2, m2, v2) }}"""
    report = infold.doctor(
        build(text, healthy() | {f"{k}2": v for k, v in healthy(2).items()} | {"w": np.ones((6, 3, 1, 1), np.float32)})
    )
    assert kinds(report) == [("redundant-bias", "p"), ("two-in-a-row", "y")] and report.ok


def test_layers_and_the_json_form() -> None:
    report = infold.doctor(single(with_value("v", np.nan, 0)))
    given = healthy()
    layer = report.layers[0]
    assert (layer.name, layer.channels) == ("y", 6)
    assert layer.mean_of_mean == pytest.approx(given["m"].mean(), rel=1e-6)
    assert layer.std_of_mean == pytest.approx(given["m"].std(), rel=1e-6) and np.isnan(layer.mean_of_var)
    document = json.loads(json.dumps(report.to_dict()))
    assert document["findings"][0].keys() == {"severity", "node", "kind", "message", "remedy"}
    assert list(document["layers"][0]) == ["name", "channels", "mean_of_mean", "std_of_mean", "mean_of_var", "std_of_var"]


def test_the_gravest_first() -> None:
    model = single(with_value("s", 0, 0) | with_value("v", -1, 3) | {"b": np.float32([np.nan] * 6)}, "<epsilon = 0.1>")
    assert [f.severity for f in infold.doctor(model).findings] == ["error", "error", "warning", "info"]


def test_no_alarm_on_trained_networks() -> None:
    from importlib.resources import files

    report = infold.doctor(files("infold.demo") / "lenet.onnx")
    assert {finding.severity for finding in report.findings} <= {"info"} and len(report.layers) == 4
    for name in ("resnet50", "inception_v2"):
        report = infold.doctor(LIGHT / f"light_{name}.onnx")
        assert report.findings == [] and len(report.layers) > 50


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(ODD_NUMBERS), min_size=24, max_size=24))
def test_any_numbers_are_examined_without_a_warning(numbers: list[float]) -> None:
    arrays = np.array(numbers, np.float32).reshape(4, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = infold.doctor(single(dict(zip("sbmv", arrays))))
    assert report.ok == (np.isfinite(arrays).all() and bool((arrays[3] >= 0).all()))


def test_no_channels_at_all() -> None:
    constants = {name: array[:0] for name, array in healthy().items()}
    report = infold.doctor(build(f"g (float[N,0,4] x) => (float[N,0,4] y) {{ y = {BN} (x, s, b, m, v) }}", constants))
    assert report.ok and report.layers[0].channels == 0 and report.layers[0].mean_of_var is None


def test_a_model_without_batchnorms() -> None:
    report = infold.doctor(build("g (float[N] x) => (float[N] y) { y = Relu (x) }", {}))
    assert report == DoctorReport() and report.ok
