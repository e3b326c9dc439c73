"""Running statistics from data: torch's own for the first layer, a float64 run layer by layer for all of them."""

from __future__ import annotations

import copy
import io

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import infold
from infold.errors import UnsupportedError
from infold.report.moments import Moments

torch = pytest.importorskip("torch")


class Block(torch.nn.Module):
    """Branches, a residual, a grouped convolution, a pre-activation BatchNorm and a one-dimensional one."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.left = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(8))
        self.right = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, eps=1e-3))
        self.pre = nn.BatchNorm2d(8)
        self.last = nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 2))

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.left(x) + self.right(x)) + x
        return self.last(torch.relu(self.pre(x)).mean((2, 3)))


def network(seed: int = 0) -> Block:
    torch.manual_seed(seed)
    net = Block()
    for norm in norms(net):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        if norm.affine:
            torch.nn.init.normal_(norm.weight)
            torch.nn.init.normal_(norm.bias)
    return net.eval()


def norms(net: torch.nn.Module) -> list:
    return [module for module in net.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]


def export(net: torch.nn.Module, training: bool = False) -> ir.Model:
    file = io.BytesIO()
    mode = torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(
        net,
        (torch.zeros(2, 3, 6, 6),),
        file,
        dynamo=False,
        training=mode,
        do_constant_folding=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "N", 2: "H", 3: "W"}},
    )
    net.eval()
    return infold.load(file.getvalue())


def oracle(net: Block, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Layer by layer in torch and float64: each BatchNorm gets the statistics of its input, then lets it pass."""
    net, found = copy.deepcopy(net).double().eval(), []

    def measure(norm, inputs):
        axes = [0, *range(2, inputs[0].ndim)]
        norm.running_mean.copy_(inputs[0].mean(axes))
        norm.running_var.copy_(inputs[0].var(axes, unbiased=True))
        found.append((norm.running_mean.numpy().copy(), norm.running_var.numpy().copy()))

    for norm in norms(net):
        norm.register_forward_pre_hook(measure)
    with torch.no_grad():
        net(torch.from_numpy(x).double())
    return found


def data(seed: int = 1, samples: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(samples, 3, 6, 6)) * [[[2]], [[0.3]], [[1]]] + [[[5]], [[-1]], [[0]]]).astype(np.float32)


def statistics(model: ir.Model) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        tuple(value.const_value.numpy() for value in node.inputs[3:5])
        for node in model.graph
        if node.op_type == "BatchNormalization"
    ]


def assert_statistics(model: ir.Model, expected: list[tuple[np.ndarray, np.ndarray]]) -> None:
    found = statistics(model)
    assert len(found) == len(expected)
    for (mean, variance), (true_mean, true_variance) in zip(found, expected):
        assert mean.dtype == variance.dtype == np.float32
        np.testing.assert_allclose(mean, true_mean, rtol=0, atol=3e-6 * np.sqrt(true_variance).max())
        np.testing.assert_allclose(variance, true_variance, rtol=2e-5)


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 4, 3]], ids=str)
def test_every_layer_as_float64_computes_it_however_the_data_is_cut(sizes: list[int]) -> None:
    net, x = network(), data()
    model, report = infold.recalibrate(export(net), np.split(x, np.cumsum(sizes)[:-1]))
    assert_statistics(model, oracle(net, x))
    assert report.recalibrated == 5 and report.samples == 12
    assert [item.values for item in report.items] == [432, 432, 432, 432, 12]


def test_torch_itself_in_training_mode_agrees_on_the_first_layer() -> None:
    net, x = network(), data()
    model, _ = infold.recalibrate(export(net), [x[:7], x[7:]])
    for norm in norms(net):
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative average: after one batch, that batch
    net.train()(torch.from_numpy(x))
    mean, variance = statistics(model)[0]
    np.testing.assert_allclose(mean, net.stem[1].running_mean, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(variance, net.stem[1].running_var, rtol=5e-6)


def test_the_result_runs_like_the_network_with_those_statistics() -> None:
    net, x = network(), data()
    model, _ = infold.recalibrate(export(net), [x])
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for norm, (mean, variance) in zip(norms(net), oracle(net, x)):
        norm.running_mean.copy_(torch.from_numpy(mean))
        norm.running_var.copy_(torch.from_numpy(variance))
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    found = infold.InferenceSession(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    again, report = infold.recalibrate(model, [x])
    assert_statistics(again, statistics(model))
    assert all(item.mean_shift < 1e-4 and item.variance_ratio == pytest.approx(1, abs=1e-4) for item in report.items)


def test_weights_and_the_original_stay() -> None:
    original = export(network())
    before = ir.to_proto(original).SerializeToString(deterministic=True)
    model, report = infold.recalibrate(original, [data()])
    assert ir.to_proto(original).SerializeToString(deterministic=True) == before
    weights = {name: value.const_value.numpy() for name, value in original.graph.initializers.items()}
    kept = {name for name in weights if "running" not in name}
    assert len(kept) >= 12
    for name in kept:
        np.testing.assert_array_equal(model.graph.initializers[name].const_value.numpy(), weights[name])
    assert all(item.mean_shift > 0.01 for item in report.items)


def test_a_model_in_training_mode_becomes_one_for_inference() -> None:
    net, x = network(), data()
    model, _ = infold.recalibrate(export(net, training=True), [x])
    assert_statistics(model, oracle(net, x))
    assert all(finding.kind != "training-mode" for finding in infold.doctor(model).findings)
    infold.InferenceSession(model)


def test_biased_on_request() -> None:
    net, x = network(), data()
    given = export(net)
    unbiased, biased = (infold.recalibrate(given, [x], unbiased=flag)[0] for flag in (True, False))
    np.testing.assert_allclose(statistics(biased)[0][1] * (432 / 431), statistics(unbiased)[0][1], rtol=1e-6)


def test_statistics_shared_by_two_layers_become_two() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x) => (float[N,2] z) {
        y = BatchNormalization (x, s, b, m, v)  t = Exp (y)  z = BatchNormalization (t, s, b, m, v) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.ones(2, np.float32), name) for name in "sbmv")
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    model, _ = infold.recalibrate(proto, [{"x": x}])
    (mean, _), (second, _) = statistics(model)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5, atol=1e-7)
    y = (x - x.mean(0)) / np.sqrt(x.var(0, ddof=1) + 1e-5) + 1
    np.testing.assert_allclose(second, np.exp(y).mean(0), rtol=1e-5)


def test_progress_counts_batches_and_layers() -> None:
    seen = []
    infold.recalibrate(export(network()), np.split(data(), 3), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 15) for done in range(1, 16)]
    seen.clear()
    infold.recalibrate(export(network()), iter(np.split(data(), 3)), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, None if done <= 3 else 15) for done in range(1, 16)]


def test_layers_inside_branches_of_an_if_are_left_alone() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x, bool c) => (float[N,2] z) {
        y = BatchNormalization (x, s, b, m, v)
        z = If (c) <then_branch = a () => (float[N,2] p) { p = BatchNormalization (y, s, b, m, v) },
                    else_branch = e () => (float[N,2] q) { q = Neg (y) }> }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.ones(2, np.float32), name) for name in "sbmv")
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    model, report = infold.recalibrate(proto, [{"x": x, "c": np.array(True)}])
    assert report.recalibrated == 1 and "subgraph" in report.items[1].reason
    onnx.checker.check_model(ir.to_proto(model))


@pytest.mark.parametrize(
    "batches, words",
    [
        ([], "there is no batch"),
        ([np.zeros((1, 3, 1, 1), np.float32)], "one value per channel"),
        ([{"z": np.zeros((2, 3, 6, 6), np.float32)}], "'x' is missing"),
        ([np.full((2, 3, 6, 6), np.nan, np.float32)], "the mean of its input is not finite"),
        ([np.zeros((2, 3, 6, 6))], "float32 expected"),
        ([np.zeros((2, 4, 6, 6), np.float32)], "4"),
    ],
)
def test_data_that_does_not_do(batches: list, words: str) -> None:
    with pytest.raises(infold.Error, match=words):
        infold.recalibrate(export(network()), batches)


def test_nothing_to_recalibrate() -> None:
    folded, _ = infold.fold(export(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2)).eval()))
    weight = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x) => (float[N,2] z)
        <float[1,2] w = {1, 2}, float[2] s = {1, 1}> { y = BatchNormalization (w, s, s, s, s)  z = Add (x, y) }""")
    with pytest.raises(UnsupportedError, match="folded already"):  # what it normalises is constant
        infold.recalibrate(weight, [np.zeros((3, 2), np.float32)])
    with pytest.raises(UnsupportedError, match="folded already"):
        infold.recalibrate(folded, [data()])
    untracked = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2, track_running_stats=False)).eval()
    file = io.BytesIO()
    torch.onnx.export(untracked, (torch.zeros(12, 3, 6, 6),), file, dynamo=False, input_names=["x"])
    with pytest.raises(UnsupportedError, match="its mean is computed at run time"):
        infold.recalibrate(file.getvalue(), [data()])


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([(), (3,), (2, 5), (2, 3, 2)])
)
def test_moments_of_pieces_are_those_of_the_whole(seed: int, sizes: list[int], rest: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    pieces = [(rng.normal(size=(size, 4, *rest)) * 1e-3 + 1e3).astype(np.float32) for size in sizes]
    moments, whole = Moments(4), np.concatenate(pieces).astype(np.float64)
    for piece in pieces:
        moments.update(piece)
    axes = (0, *range(2, whole.ndim))
    assert moments.count == whole.size // 4
    np.testing.assert_allclose(moments.mean, whole.mean(axes), rtol=1e-13)
    if moments.count > 1:
        np.testing.assert_allclose(moments.variance(True), whole.var(axes, ddof=1), rtol=1e-9, atol=1e-18)
        np.testing.assert_allclose(moments.variance(False), whole.var(axes), rtol=1e-9, atol=1e-18)


def test_moments_of_more_than_is_widened_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from infold.report import moments as module

    monkeypatch.setattr(module, "_AT_A_TIME", 100)
    x = np.random.default_rng(0).normal(size=(30, 4, 5)).astype(np.float32)
    cut = Moments(4)
    cut.update(x)
    np.testing.assert_allclose(cut.variance(True), x.astype(np.float64).var((0, 2), ddof=1), rtol=1e-13)
