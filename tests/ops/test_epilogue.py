"""A BatchNorm behind an activation is the end of the layer before it, and costs no pass of its own."""
from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, check, compare, session

ACTIVATIONS = {"Relu": {}, "LeakyRelu": {"alpha": 0.2}, "Sigmoid": {}, "Gelu": {}, "PRelu": {}}


def batchnorm(net: Net, x: str, channels: int, **attributes) -> str:
    return net("BatchNormalization", x, net.normal(channels), net.normal(channels), net.normal(channels), net.positive(channels),
               **attributes)


def activated(net: Net, x: str, kind: str, channels: int) -> str:
    return net(kind, x, *([net.normal(channels, 1, 1)] if kind == "PRelu" else []), **ACTIVATIONS[kind])


def layer(net: Net, kind: str) -> tuple[str, int]:
    """A layer and its channels: odd numbers of them, and 24."""
    if kind == "depthwise":
        return net("Conv", net.input(2, 19, 9, 8), net.weight(19, 1, 3, 3), net.normal(19), pads=[1] * 4, group=19), 19
    if kind == "grouped":
        return net("Conv", net.input(2, 6, 9, 8), net.weight(10, 3, 3, 3), net.normal(10), pads=[1] * 4, group=2), 10
    if kind == "transposed":
        return net("ConvTranspose", net.input(2, 6, 5, 4), net.weight(6, 21, 3, 3), net.normal(21), strides=[2, 2]), 21
    if kind == "1-D":
        return net("Conv", net.input(2, 6, 30), net.weight(17, 6, 3), net.normal(17), pads=[1] * 2), 17
    return net("Conv", net.input(2, 3, 9, 8), net.weight(24, 3, 3, 3), net.normal(24), strides=[2, 2]), 24


def finish(net: Net, *outputs: str, fused: int = 1) -> None:
    """The result is right; as many BatchNorms as said are `fused`, and nothing but the layers touches memory."""
    subject = check(net, *outputs)
    report = subject.report.fold
    assert (report.batchnorms, report.fused) == (fused, fused), report.items
    kernels = {record.kernel for record in subject.profile(net.feeds, runs=1)}
    assert "affine" not in kernels, kernels


@pytest.mark.parametrize("clamped", [False, True], ids=["bn", "bn-relu"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["dense", "grouped", "depthwise", "transposed"])
def test_every_layer_and_activation(kind: str, activation: str, clamped: bool):
    net = Net(1)
    y, channels = layer(net, kind)
    y = batchnorm(net, activated(net, y, activation, channels), channels)
    y = net("Relu", y) if clamped else y
    finish(net, net("Conv", y, net.weight(4, channels, 3, 3), pads=[1] * 4))


@pytest.mark.parametrize("opset, attributes", [(6, {"is_test": 1}), (9, {"epsilon": 0.1}), (14, {}), (15, {})])
def test_every_form(opset: int, attributes: dict):
    net = Net(2, opset)
    y, channels = layer(net, "1-D")
    y = batchnorm(net, net("Relu", y), channels, **attributes)
    finish(net, net("Conv", y, net.weight(4, channels, 3), pads=[1] * 2))


def test_behind_a_residual():
    net = Net(3)
    x, channels = layer(net, "dense")
    x = net("MaxPool", x, kernel_shape=[1, 1])
    y = net("Add", net("Conv", x, net.weight(24, 24, 3, 3), pads=[1] * 4), x)
    y = batchnorm(net, net("Relu", y), channels)
    finish(net, net("Conv", y, net.weight(4, channels, 3, 3), pads=[1] * 4))


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_behind_matrix_products(kind: str):
    net = Net(4)
    y = net("Gemm", net.input(5, 11), net.weight(13, 11), net.normal(13), transB=1) if kind == "Gemm" else \
        net("Add", net("MatMul", net.input(5, 11), net.weight(11, 13)), net.normal(13))
    finish(net, batchnorm(net, net("Relu", y), 13))


def test_columns_of_a_product_of_rank_3_are_no_channels():
    """There the channels are dimension 1: the rows."""
    net = Net(5)
    y = net("Relu", net("MatMul", net.input(2, 7, 7), net.weight(7, 7)))
    subject = check(net, batchnorm(net, y, 7))
    assert subject.report.fold.fused == 0


def test_what_others_read_keeps_its_pass():
    net = Net(6)
    y, channels = layer(net, "dense")
    y = net("Relu", y)
    subject = check(net, batchnorm(net, y, channels), y)
    assert subject.report.fold.fused == 0


def test_few_channels_of_a_transposed_convolution_keep_their_pass():
    """Its pixels come one phase at a time: a sweep over 3 floats here and there would cost more than a pass."""
    net = Net(7)
    y = net("Relu", net("ConvTranspose", net.input(2, 6, 5, 4), net.weight(6, 3, 3, 3), strides=[2, 2]))
    subject = check(net, batchnorm(net, y, 3))
    assert subject.report.fold.fused == 0


def test_a_second_batchnorm_and_a_second_activation():
    """One map per layer; what comes behind it is a pass, once for BatchNorm and activation together."""
    net = Net(8)
    y, channels = layer(net, "dense")
    y = net("Sigmoid", batchnorm(net, net("Relu", y), channels))
    y = net("Conv", net("LeakyRelu", batchnorm(net, y, channels)), net.weight(4, channels, 3, 3), pads=[1] * 4)
    subject = check(net, y)
    assert subject.report.fold.fused == 2


def test_broken_statistics_stay_what_they_are():
    net = Net(9)
    y, channels = layer(net, "dense")
    variance = np.ones(channels, np.float32)
    variance[3] = -1
    y = net("BatchNormalization", net("Relu", y), net.normal(channels), net.normal(channels), net.normal(channels),
            net.constant(variance))
    found = session(net.model(y)).run(None, net.feeds)[0]
    assert np.isnan(found[:, 3]).all() and np.isfinite(np.delete(found, 3, axis=1)).all()


def test_between_convolutions_that_run_band_by_band():
    """Depthwise and 1x1 convolutions, each with a BatchNorm behind its activation that the padding keeps where it is."""
    net = Net(10)
    y = net("Conv", net.input(1, 8, 20, 12), net.weight(24, 8, 1, 1), net.normal(24))
    y = batchnorm(net, net("Relu", y), 24)
    y = net("Conv", y, net.weight(24, 1, 3, 3), net.normal(24), pads=[1] * 4, group=24)
    y = net("LeakyRelu", batchnorm(net, net("Gelu", y), 24))
    y = net("Conv", y, net.weight(5, 24, 1, 1))
    check(net, y)
    chained, single = (session(net.model(y), threads=2, algorithms={"*": way}) for way in ("chain", "depthwise"))
    assert chained.report.fold.fused == single.report.fold.fused == 2
    compare(chained.run(None, net.feeds)[0], single.run(None, net.feeds)[0].astype(np.float64), 1e-6)
