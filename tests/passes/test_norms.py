"""Normalisations as exporters spell them become one node each: the same in onnxruntime and on infold's session."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from exports import export, timm_layers
from hypothesis import given, settings
from hypothesis import strategies as st
from passes_harness import assert_close, fold_and_compare, model, normal, operators

import infold
from infold import passes
from infold.reference import Float64Model

torch = pytest.importorskip("torch")
nn = torch.nn
IMAGE, ROWS = (2, 12, 5, 4), (2, 5, 12)


class Written(nn.Module):
    """(x - mean) / deviation * gamma + beta, as `formula(x, gamma, beta)` says it."""

    def __init__(self, formula, *shape: int) -> None:
        super().__init__()
        self.formula, self.gamma, self.beta = formula, nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        return self.formula(x, self.gamma, self.beta)


def annotated_transformer(x, gamma, beta):
    return gamma * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-3) + beta


def channels_first(x, gamma, beta):
    u = x.mean(1, keepdim=True)
    x = (x - u) / torch.sqrt((x - u).pow(2).mean(1, keepdim=True) + 1e-6)
    return gamma[:, None, None] * x + beta[:, None, None]


def trailing_axes(x, gamma, beta):
    return (x - x.mean((-2, -1), keepdim=True)) * torch.rsqrt(x.var((-2, -1), keepdim=True, unbiased=False) + 1e-5) * gamma + beta


def unbiased(x, gamma, beta):
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + 1e-5) * gamma + beta


def llama(x, gamma, beta):
    return gamma * (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)).type_as(x)


def groups(x, gamma, beta):
    n, c, h, w = x.shape
    y = x.view(n, 3, -1)
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    return y.view(n, c, h, w) * gamma[:, None, None] + beta[:, None, None]


def keras(x, gamma, beta):
    m = x.mean((1, 2), keepdim=True)
    factor = torch.rsqrt(((x - m) ** 2).mean((1, 2), keepdim=True) + 1e-3) * gamma
    return x * factor + (beta - m * factor)


def keras_groups(x, gamma, beta):
    n, h, w, c = x.shape
    y = x.reshape(n, h, w, 3, c // 3)
    m = y.mean((1, 2, 4), keepdim=True)
    factor = torch.rsqrt(((y - m) ** 2).mean((1, 2, 4), keepdim=True) + 1e-3) * gamma.reshape(3, c // 3)
    return (y * factor + (beta.reshape(3, c // 3) - m * factor)).reshape(n, h, w, c)


def flax(x, gamma, beta):
    m = x.mean(-1, keepdim=True)
    return (x - m) * (torch.rsqrt(torch.clamp((x * x).mean(-1, keepdim=True) - m * m, min=0) + 1e-6) * gamma) + beta


def batch(x, gamma, beta):
    m = x.mean((0, 2, 3), keepdim=True)
    return (x - m) / torch.sqrt(((x - m) ** 2).mean((0, 2, 3), keepdim=True) + 1e-5) * gamma[:, None, None] + beta[:, None, None]


def clamped(x, gamma, beta):
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6)


CASES = {  # name: module, shape of x, operator from opset 17 on, Transposes
    "LayerNorm": (lambda: nn.LayerNorm(12), ROWS, "LayerNormalization", 0),
    "LayerNorm over all": (lambda: nn.LayerNorm((5, 12)), ROWS, "LayerNormalization", 0),
    "annotated transformer": (lambda: Written(annotated_transformer, 12), ROWS, "infold::LayerNormStd", 0),
    "channels first": (lambda: Written(channels_first, 12), IMAGE, "LayerNormalization", 2),
    "trailing axes": (lambda: Written(trailing_axes, 5, 12), ROWS, "LayerNormalization", 0),
    "unbiased": (lambda: Written(unbiased, 12), ROWS, "LayerNormalization", 0),
    "flax": (lambda: Written(flax, 12), ROWS, "LayerNormalization", 0),
    "llama": (lambda: Written(llama, 12), ROWS, "infold::RMSNormalization", 0),
    "GroupNorm": (lambda: nn.GroupNorm(3, 12), IMAGE, "infold::GroupNorm", 0),
    "GroupNorm of one group": (lambda: nn.GroupNorm(1, 12), IMAGE, "infold::GroupNorm", 0),
    "GroupNorm without weights": (lambda: nn.GroupNorm(3, 12, affine=False), IMAGE, "infold::GroupNorm", 0),
    "groups": (lambda: Written(groups, 12), IMAGE, "infold::GroupNorm", 0),
    "keras": (lambda: Written(keras, 12), (2, 5, 4, 12), "InstanceNormalization", 2),
    "keras groups": (lambda: Written(keras_groups, 12), (2, 5, 4, 12), "infold::GroupNorm", 2),
    "InstanceNorm": (lambda: nn.InstanceNorm2d(12, affine=True), IMAGE, "InstanceNormalization", 0),
    "normalize": (lambda: Written(lambda x, *_: nn.functional.normalize(x), 1), IMAGE, "infold::L2Normalization", 0),
    "clamped": (lambda: Written(clamped, 1), ROWS, "infold::L2Normalization", 0),
    "FilterResponseNorm": (lambda: timm_layers("filter_response_norm").FilterResponseNormTlu2d(12, apply_act=False), IMAGE,
                           "infold::FilterResponseNorm", 0),
    "timm's LayerNorm2d": (lambda: timm_layers("norm").LayerNorm2d(12), IMAGE, "LayerNormalization", 2),
    "timm's RmsNorm2d": (lambda: timm_layers("norm").RmsNorm2d(12), IMAGE, "infold::RMSNormalization", 2),
}


def drawn(make):
    torch.manual_seed(0)
    module = make().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def check(subject: ir.Model, x: np.ndarray, name: str, transposes: int = 0) -> ir.Model:
    """One node of this name in the place of all; returns the prepared model."""
    prepared, _ = fold_and_compare(subject, {"x": x}, rule=passes.prepare, tolerance=1e-5)
    assert operators(prepared) == {name: 1} | ({"Transpose": transposes} if transposes else {})
    expected = Float64Model(subject).run({"x": x})["y"]
    session = infold.InferenceSession(subject, infold.SessionOptions(native_only=True))
    assert_close(session.run(None, {"x": x})[0], expected, 2e-6)
    return prepared


@pytest.mark.zoo
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_what_torchscript_writes(case):
    make, shape, name, transposes = CASES[case]
    x = torch.randn(shape) * 2 + 1
    prepared = check(export(drawn(make), x, "script", 17), x.numpy(), name, transposes)
    if "infold::" in name:  # what the function's body says is recognised again
        assert operators(passes.prepare(prepared)[0]) == operators(prepared)


@pytest.mark.zoo
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case, how, opset, name", [
    ("annotated transformer", "traced", 18, "infold::LayerNormStd"),
    ("channels first", "optimised", 18, "LayerNormalization"),
    ("GroupNorm", "optimised", 21, "GroupNormalization"),
    ("GroupNorm", "script", 13, "infold::GroupNorm"),
    ("LayerNorm", "script", 13, "infold::LayerNormalization"),
    ("llama", "traced", 23, "RMSNormalization"),
])
def test_other_exporters_and_operator_sets(case, how, opset, name):
    make, shape, _, transposes = CASES[case]
    x = torch.randn(shape) * 2 + 1
    check(export(drawn(make), x, how, opset), x.numpy(), name, transposes)


@pytest.mark.zoo
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case, how, opset", [
    ("groups", "script", 17), ("GroupNorm", "script", 17), ("groups", "traced", 18), ("keras", "script", 13),
    ("annotated transformer", "script", 17), ("normalize", "script", 17),
])
def test_open_dimensions(case, how, opset):
    make, shape, name, transposes = CASES[case]
    x = torch.randn(shape) * 2 + 1
    subject = export(drawn(make), x, how, opset, tuple(axis for axis in range(len(shape)) if shape[axis] != 12))
    check(subject, x.numpy(), name, transposes)


@pytest.mark.zoo
@pytest.mark.timeout(300)
def test_statistics_of_the_batch():
    x = torch.randn(IMAGE) * 2 + 1
    subject = export(drawn(lambda: Written(batch, 12)), x, "script", 17)
    prepared, report = passes.prepare(subject)
    assert operators(prepared) == {"BatchNormalization": 1} and report.remaining == report.batchnorms == 1
    expected = Float64Model(subject).run({"x": x.numpy()})["y"]  # onnxruntime is no judge of this mode
    assert_close(infold.InferenceSession(subject).run(None, {"x": x.numpy()})[0], expected, 2e-6)
    assert operators(passes.fold(subject)[0])["BatchNormalization"] == 0


def test_statistics_of_a_batch_of_vectors():
    subject = model("g (float[7,6] x) => (float[7,6] y) { m = ReduceMean(x, axes) d = Sub(x, m) q = Mul(d, d)"
                    " w = ReduceMean(q, axes) e = Add(w, epsilon) r = Sqrt(e) y = Div(d, r) }",
                    {"epsilon": np.float32(1e-3), "axes": np.int64([0])}, opset=18)
    x = normal(np.random.default_rng(0), 7, 6)
    session = infold.InferenceSession(subject, infold.SessionOptions(native_only=True))
    assert operators(session.model) == {"BatchNormalization": 1}
    assert_close(session.run(None, {"x": x})[0], Float64Model(subject).run({"x": x})["y"], 2e-6)


@pytest.mark.zoo
@pytest.mark.timeout(300)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("how", ["script", "traced"])
def test_a_layer_that_tracks_no_statistics(how, training):
    """Exporters compute them beside the BatchNormalization: means of means, whose results nobody else reads."""
    x = torch.randn(IMAGE) * 2 + 1
    layer = drawn(lambda: nn.BatchNorm2d(12, track_running_stats=False)).train(training)
    subject = export(layer, x, how, 18)
    prepared, report = passes.prepare(subject)
    assert operators(prepared) == {"BatchNormalization": 1} and report.remaining == report.batchnorms == 1
    session = infold.InferenceSession(subject, infold.SessionOptions(native_only=True, training_mode="batch"))
    with torch.no_grad():
        expected = layer.double()(x.double()).numpy()
    assert_close(session.run(None, {"x": x.numpy()})[0], expected, 2e-6)


STATISTICS = ("m = ReduceMean <keepdims = 0> (x, axes) n = ReduceMean <keepdims = 1> (x, axes) d = Sub(x, n) q = Mul(d, d)"
              " w = ReduceMean <keepdims = 0> (q, axes) y = BatchNormalization (x, scale, bias, m, w)")


@pytest.mark.parametrize("old, new", [("", ""), ("scale, bias, m, w", "scale, bias, w, m"), ("(x, axes) n", "(x, others) n"),
                                      ("scale, bias, m", "scale, bias, bias")])
def test_near_misses_of_computed_statistics(old, new):
    rng = np.random.default_rng(2)
    subject = model("g (float[4,4,5] x) => (float[4,4,5] y) {" + STATISTICS.replace(old, new, 1) + "}",
                    {"scale": normal(rng, 4), "bias": np.abs(normal(rng, 4)), "axes": np.int64([0, 2]), "others": np.int64([1, 2])},
                    opset=18)
    x = np.abs(normal(rng, 4, 4, 5)) + 1
    session = infold.InferenceSession(subject, infold.SessionOptions(native_only=True))
    assert (operators(session.model) == {"BatchNormalization": 1}) == (not old)
    assert_close(session.run(None, {"x": x})[0], Float64Model(subject).run({"x": x})["y"], 2e-6)


class Network(nn.Module):
    """A residual block as networks use them: convolution, norm, activation."""

    def __init__(self, norm) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), norm(), nn.SiLU())
        self.second = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), norm(), nn.GELU(), nn.Conv2d(12, 4, 1))

    def forward(self, x):
        x = self.first(x)
        return self.second(x) + x[:, :4]


@pytest.mark.zoo
@pytest.mark.timeout(300)
@pytest.mark.parametrize("norm, name", [
    (lambda: nn.GroupNorm(4, 12), "infold::GroupNorm"),
    (lambda: timm_layers("evo_norm").EvoNorm2dS0(12, groups=4), "infold::EvoNormS0"),
    (lambda: Written(channels_first, 12), "LayerNormalization"),
])
def test_between_convolutions(norm, name):
    x = torch.randn(2, 3, 8, 8)
    subject = export(drawn(lambda: Network(norm)), x, "script", 17, (0, 2, 3))
    prepared, _ = fold_and_compare(subject, {"x": x.numpy()}, rule=passes.prepare, tolerance=1e-5)
    found = operators(prepared)
    assert found[name] == 2 and found["Conv"] == 3 and found["infold::Gelu"] == 1 and found["ReduceMean"] == found["Sqrt"] == 0
    session = infold.InferenceSession(subject, infold.SessionOptions(native_only=True))
    for shape in ((2, 3, 8, 8), (1, 3, 9, 5)):
        feeds = {"x": normal(np.random.default_rng(0), *shape)}
        assert_close(session.run(None, feeds)[0], Float64Model(subject).run(feeds)["y"], 2e-6)


# Spelled by hand

def spelled(mean: str, square: str, root: str, affine: str, minuend: str = "d = Sub(x, m)", keepdims: int = 1) -> str:
    return " ".join([mean, minuend, square, f"w = ReduceMean <keepdims = {keepdims}> (q, axes)", root, affine])


SQUARES = ["q = Mul(d, d)", "q = Pow(d, two)"]
ROOTS = ["e = Add(w, epsilon) r = Sqrt(e) z = Div(d, r)", "e = Add(epsilon, w) r = Sqrt(e) i = Reciprocal(r) z = Mul(i, d)",
         "e = Add(w, epsilon) i = Pow(e, minus_half) z = Mul(d, i)", "e = Add(w, epsilon) r = Pow(e, half) z = Div(d, r)",
         "e = Add(w, epsilon) i = Reciprocal(e) r = Sqrt(i) z = Mul(d, r)"]
AFFINES = ["y = Identity(z)", "y = Mul(z, gamma)", "g = Mul(gamma, z) y = Add(beta, g)", "g = Mul(z, gamma) y = Sub(g, beta)",
           "g = Div(z, gamma) y = Add(g, beta)", "y = Add(z, beta)"]
MEAN = "m = ReduceMean <keepdims = 1> (x, axes)"


def graph(body: str, axes: tuple[int, ...], channels: int = 1, outputs: str = "") -> ir.Model:
    rng, shape = np.random.default_rng(0), (2, 6, 4, 3)
    each = [size if axis == channels else 1 for axis, size in enumerate(shape)]
    weights = {name: normal(rng, *each) for name in ("gamma", "beta")}
    numbers = {"epsilon": 1e-3, "two": 2, "half": 0.5, "minus_half": -0.5}
    sizes = ",".join(map(str, shape))
    return model(f"g (float[{sizes}] x) => (float[{sizes}] y{outputs}) {{ {body} }}",
                 {**weights, **{name: np.float32(value) for name, value in numbers.items()}, "axes": np.int64(axes)}, opset=18)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(SQUARES), st.sampled_from(ROOTS), st.sampled_from(AFFINES), st.sampled_from([
    ((2, 3), 1, "InstanceNormalization"), ((-1, -2, -3), 1, "infold::GroupNorm"), ((1,), 1, "LayerNormalization"),
    ((3,), 3, "LayerNormalization"), ((1, 2), 3, "InstanceNormalization"), ((1, 2, 3), 3, "infold::GroupNorm")]))
def test_spellings(square, root, affine, over):
    axes, channels, name = over
    subject = graph(spelled(MEAN, square, root, affine), axes, channels=channels)
    prepared, _ = fold_and_compare(subject, {"x": 3 * normal(np.random.default_rng(1), 2, 6, 4, 3) + 1}, rule=passes.prepare,
                                   tolerance=1e-5)
    assert {op for op in operators(prepared) if op != "Transpose"} == {name}


def test_dimensions_that_come_back_as_unsqueeze():
    body = "m0 = ReduceMean <keepdims = 0> (x, axes) m = Unsqueeze(m0, axes)" \
        + spelled("", SQUARES[0], "w1 = Unsqueeze(w, axes) " + ROOTS[0].replace("(w,", "(w1,"), AFFINES[2], keepdims=0)
    prepared, _ = fold_and_compare(graph(body, (2, 3)), {"x": normal(np.random.default_rng(1), 2, 6, 4, 3)}, rule=passes.prepare,
                                   tolerance=1e-5)
    assert operators(prepared) == {"InstanceNormalization": 1}


GOOD = spelled(MEAN, SQUARES[0], ROOTS[0], AFFINES[2])


@pytest.mark.parametrize("old, new", [
    ("q = Mul(d, d)", "q = Mul(d, x)"), ("q = Mul(d, d)", "t = Mul(d, d) q = Mul(t, t)"),
    ("d = Sub(x, m)", "d = Add(x, m)"),
    ("e = Add(w, epsilon)", "e = Mul(w, epsilon)"), ("e = Add(w, epsilon)", "e = Add(w, gamma)"),
    ("z = Div(d, r)", "z = Div(r, d)"), ("z = Div(d, r)", "z = Mul(d, r)"), ("r = Sqrt(e)", "r = Pow(e, two)"),
    ("z = Div(d, r)", "z = Div(d, e)"), ("(q, axes)", "(q, others)"), ("r = Sqrt(e)", "s = Sqrt(w) r = Add(s, epsilon)"),
])
def test_near_misses(old, new):
    assert old in GOOD
    subject = graph("others = Constant <value_ints = [3]> ()" + GOOD.replace(old, new), (2, 3))
    feeds = {"x": normal(np.random.default_rng(1), 2, 6, 4, 3)}
    found = operators(fold_and_compare(subject, feeds, rule=passes.prepare, tolerance=1e-5)[0])
    assert "InstanceNormalization" not in found and "infold::GroupNorm" not in found


def test_a_factor_of_nearly_one_is_not_lost():
    body = "c = Constant <value_float = 1.0005> () " + GOOD.replace("q = Mul(d, d)", "o = Mul(d, c) q = Mul(o, d)")
    feeds = {"x": normal(np.random.default_rng(1), 2, 6, 4, 3)}
    prepared, _ = fold_and_compare(graph(body, (2, 3)), feeds, rule=passes.prepare, tolerance=1e-6)
    assert operators(prepared) == {"InstanceNormalization": 1}


@pytest.mark.parametrize("axes", [(0,), (0, 1), (2,), (0, 1, 2, 3), (0, 2)])
def test_axes_of_no_norm(axes):
    found = operators(passes.prepare(graph(GOOD, axes))[0])
    assert not any("Norm" in name for name in found), found


@pytest.mark.parametrize("value, shape", [("r", "2,6,1,1"), ("d", "2,6,4,3"), ("m", "2,6,1,1")])
def test_values_read_elsewhere_stay(value, shape):
    subject = graph(GOOD, (2, 3), outputs=f", float[{shape}] {value}")
    feeds = {"x": normal(np.random.default_rng(1), 2, 6, 4, 3)}
    assert "InstanceNormalization" not in operators(fold_and_compare(subject, feeds, rule=passes.prepare, tolerance=1e-5)[0])


def test_the_affine_part_may_be_read_elsewhere():
    subject = graph(GOOD, (2, 3), outputs=", float[2,6,4,3] z")
    feeds = {"x": normal(np.random.default_rng(1), 2, 6, 4, 3)}
    found = operators(fold_and_compare(subject, feeds, rule=passes.prepare, tolerance=1e-5)[0])
    assert found == {"InstanceNormalization": 1, "Mul": 1, "Add": 1}


def test_what_fold_writes_are_the_operators_of_onnx():
    feeds = {"x": normal(np.random.default_rng(1), 2, 6, 4, 3)}
    assert not any("Norm" in name for name in operators(fold_and_compare(graph(GOOD, (2, 3)), feeds, tolerance=1e-5)[0]))


def test_statistics_that_are_constants_are_a_batchnorms():
    rng = np.random.default_rng(0)
    constants = {name: normal(rng, 4, 1, 1) for name in ("mean", "gamma", "beta")} | {
        "w": normal(rng, 4, 3, 1, 1), "var": rng.uniform(0.1, 2, (4, 1, 1)).astype(np.float32), "epsilon": np.float32(1e-5)}
    text = "g (float[1,3,6,6] x) => (float[1,4,6,6] y) { c = Conv(x, w) d = Sub(c, mean) e = Add(var, epsilon) r = Sqrt(e)" \
           " z = Div(d, r) s = Mul(z, gamma) y = Add(s, beta) }"
    result, _ = fold_and_compare(model(text, constants), {"x": normal(rng, 1, 3, 6, 6)}, rule=passes.prepare)
    assert operators(result) == {"Conv": 1}


def test_float16_is_recognised_once_it_is_float32():
    subject = model("g (float16[2,6] x) => (float16[2,6] y) { m = ReduceMean <axes = [-1]> (x) d = Sub(x, m) q = Mul(d, d)"
                    " w = ReduceMean <axes = [-1]> (q) e = Add(w, epsilon) r = Sqrt(e) y = Div(d, r) }",
                    {"epsilon": np.float16(1e-3)})
    x = normal(np.random.default_rng(3), 2, 6).astype(np.float16)
    result, _ = fold_and_compare(subject, {"x": x}, rule=passes.prepare, tolerance=2e-3)
    assert any("Norm" in name for name in operators(result))
