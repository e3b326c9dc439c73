"""BatchNormalization that stays a step of its own: every opset's form, any rank, and the activation after it."""
from __future__ import annotations

import io

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from session_harness import Net, check, session


def statistics(net: Net, channels: int) -> list[str]:
    return [net.normal(channels), net.normal(channels), net.normal(channels), net.positive(channels)]


FORMS = [(1, dict(is_test=1, consumed_inputs=[0, 0, 0, 1, 1])), (6, dict(is_test=1)), (7, {}), (7, dict(momentum=0.5)),
         (9, dict(epsilon=0.1)),
         (14, {}), (15, dict(momentum=0.3)), (22, dict(epsilon=1e-3))]


@pytest.mark.parametrize("shape", [(4, 7), (2, 19, 5), (2, 19, 5, 4), (1, 6, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("opset, attributes", FORMS)
def test_forms(opset: int, attributes: dict, shape: tuple):
    net = Net(1, opset)
    check(net, net("BatchNormalization", net.input(*shape), *statistics(net, shape[1]), **attributes))


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "LeakyRelu", "HardSwish", "PRelu"])
@pytest.mark.parametrize("layout", ["rows", "image"])
def test_activation_in_the_same_pass(layout: str, activation: str):
    net = Net(2)
    x = net.input(2, 21, 6, 5)
    if layout == "image":
        x = net("MaxPool", x, kernel_shape=[2, 2])
    y = net("BatchNormalization", x, *statistics(net, 21))
    y = net(activation, y, *([net.normal(21, 1, 1)] if activation == "PRelu" else []))
    check(net, y, net("Conv", y, net.weight(4, 21, 3, 3), pads=[1] * 4))


def test_unnamed_nodes_that_share_a_scale_keep_their_own_statistics():
    net = Net(3)
    x, scale = net.input(2, 5, 4, 4), net.normal(5)
    check(net, *(net("BatchNormalization", x, scale, *statistics(net, 5)[1:]) for _ in range(3)))


def test_normalised_twice_and_added():
    """A pre-activation block: BatchNormalization before the convolutions, the sum read raw and normalised."""
    net = Net(4)
    x = net("Conv", net.input(2, 3, 8, 8), net.weight(8, 3, 3, 3), pads=[1] * 4)
    for _ in range(2):
        y = net("Relu", net("BatchNormalization", x, *statistics(net, 8)))
        y = net("Conv", y, net.weight(8, 8, 3, 3), pads=[1] * 4)
        y = net("Relu", net("BatchNormalization", y, *statistics(net, 8)))
        x = net("Add", net("Conv", y, net.weight(8, 8, 3, 3), pads=[1] * 4), x)
    check(net, net("BatchNormalization", x, *statistics(net, 8)), x)


BATCH_FORMS = [(1, dict(consumed_inputs=[0, 0, 0, 1, 1]), 1), (6, dict(momentum=0.6), 5), (7, {}, 5), (7, dict(spatial=0), 5),
               (9, {}, 5), (14, dict(training_mode=1), 1), (14, dict(training_mode=1, momentum=0.3), 3),
               (15, dict(training_mode=1, epsilon=0.1), 3)]


@pytest.mark.parametrize("shape", [(7, 5), (3, 5, 9), (2, 5, 4, 3), (64, 3, 2, 5), (1, 65, 33, 31), (2, 6, 3, 4, 5), (64, 1, 3, 3)],
                         ids=str)
@pytest.mark.parametrize("opset, attributes, outputs", BATCH_FORMS)
def test_statistics_of_the_batch(opset: int, attributes: dict, outputs: int, shape: tuple):
    for layout in ("rows", "channels last") if len(shape) > 2 else ("rows",):
        net = Net(5, opset)
        x = net.feed((net.rng.standard_normal(shape) + 10).astype(np.float32))
        if layout == "channels last":
            x = net("MaxPool", x, kernel_shape=[1] * (len(shape) - 2))
        cells = shape[1:] if "spatial" in attributes else shape[1:2]
        inputs = [net.normal(*cells), net.normal(*cells), net.normal(*cells), net.positive(*cells)]
        y = net("BatchNormalization", x, *inputs, outputs=outputs, **attributes)
        check(net, *([y] if outputs == 1 else y), trivial=shape[1] == 1 or outputs > 1, tolerance=2e-6)


def test_statistics_of_the_batch_in_one_dimension():
    net = Net(5, 15)
    check(net, *net("BatchNormalization", net.input(9), *statistics(net, 1), training_mode=1, outputs=3), trivial=True)


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (3, 4, 5)], ids=str)
def test_statistics_of_every_cell(shape: tuple):
    for layout in ("rows", "channels last"):
        net = Net(7, 7)
        x = net.input(*shape)
        x = net("MaxPool", x, kernel_shape=[1] * (len(shape) - 2)) if layout == "channels last" else x
        cells = [net.normal(*shape[1:]), net.normal(*shape[1:]), net.normal(*shape[1:]), net.positive(*shape[1:])]
        check(net, net("Relu", net("BatchNormalization", x, *cells, spatial=0)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("track", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_as_pytorch_exports_it(affine: bool, track: bool, training: bool, rank: int):
    """Whatever the combination, the result is PyTorch's in float64, and no node falls back."""
    torch = pytest.importorskip("torch")
    kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}[rank]
    torch.manual_seed(rank)
    layer = kind(7, affine=affine, track_running_stats=track)
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    layer.train(training)
    x = torch.randn(4, 7, 3, 5, 2)[(..., *[0] * (5 - rank))].contiguous() * 2 + 3
    file = io.BytesIO()
    torch.onnx.export(layer, (x,), file, dynamo=False, do_constant_folding=False,
                      training=torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL)
    subject = session(ir.from_proto(onnx.load_from_string(file.getvalue())))
    found = subject.run(None, {subject.get_inputs()[0].name: x.numpy()})[0]
    assert not subject.report.fallbacks, subject.report.fallbacks
    with torch.no_grad():
        expected = layer.double()(x.double()).numpy()
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("shape", [(9, 5), (2, 5, 4, 3), (2, 5, 3, 4, 5)], ids=str)
def test_parameters_computed_in_the_run(shape: tuple):
    """What torch.export makes of a layer without running statistics: means of the data, and an ordinary BatchNormalization."""
    net = Net(8, 18)
    x = net("Relu", net.input(*shape))
    axes = net.ints(0, *range(2, len(shape)))
    mean = net("ReduceMean", x, axes, keepdims=1)
    square = net("ReduceMean", net("Mul", *[net("Sub", x, mean)] * 2), axes, keepdims=0)
    y = net("BatchNormalization", x, net.input(5), net.normal(5), net("ReduceMean", x, axes, keepdims=0), square)
    check(net, net("Relu", y) if len(shape) == 4 else y)


def test_a_variance_that_makes_no_sense_stays_what_it_is():
    """var + epsilon < 0: NaN in the channel concerned, nothing in the others."""
    net = Net(6)
    x = net.input(1, 3, 4, 4)
    scale, bias, mean, _ = statistics(net, 3)
    y = net("BatchNormalization", x, scale, bias, mean, net.constant(np.array([1, -1, 2], np.float32)))
    found = session(net.model(y)).run(None, net.feeds)[0]
    assert np.isnan(found[0, 1]).all() and np.isfinite(found[0, [0, 2]]).all()


@pytest.mark.parametrize("channels", [2, 3, 19])
@pytest.mark.parametrize("activation", [None, "Relu", "Sigmoid"])
def test_at_a_graph_input_it_is_the_copy_that_brings_the_channels_together(activation: str | None, channels: int):
    """A padded convolution wants its input's channels together, with zeros around them: the BatchNorm writes it that way."""
    net = Net(7)
    y = net("BatchNormalization", net.input(2, channels, 11, 70), *statistics(net, channels))
    y = net(activation, y) if activation else y
    subject = check(net, net("Conv", y, net.weight(6, channels, 3, 3), pads=[1] * 4))
    assert [item.verdict for item in subject.report.fold.items] == ["fused"]
    kernels = [record.kernel for record in subject.profile(net.feeds, runs=1)]
    passes = [kernel for kernel in kernels if kernel not in ("fill", "conv", "unary.identity")]
    assert passes == ["affine"] and kernels.count("unary.identity") == 1  # the result goes out in ONNX's order


@pytest.mark.parametrize("shape", [(2, 5, 40), (1, 4, 3, 5, 6)], ids=str)
def test_at_a_graph_input_of_any_rank(shape: tuple):
    net = Net(8)
    y = net("BatchNormalization", net.input(*shape), *statistics(net, shape[1]))
    check(net, net("Conv", y, net.weight(6, shape[1], *[3] * (len(shape) - 2)), pads=[1] * 2 * (len(shape) - 2)))
