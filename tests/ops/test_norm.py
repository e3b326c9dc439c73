"""Layer, RMS, instance and group normalisation, from rows and from images."""

from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, check


@pytest.mark.parametrize(
    "shape,axis",
    [
        ((4, 96), -1),
        ((2, 7, 33), -1),
        ((2, 3, 4, 5), 2),
        ((2, 3, 4, 5), 1),
        ((2, 3, 4, 5), 0),
        ((2, 1, 4, 5, 6), -1),
        ((1, 1500), 1),
    ],
)
@pytest.mark.parametrize("kind", ["LayerNormalization", "RMSNormalization"])
def test_rows(kind, shape, axis, like_onnxruntime):
    rest = shape[axis:]
    for bias in (True, False):
        net = Net(opset=23 if kind == "RMSNormalization" else 17)
        affine = [net.normal(*rest), *([net.normal(*rest)] if bias and kind == "LayerNormalization" else [])]
        y = net(kind, net.input(*shape), *affine, axis=axis, epsilon=1e-3)
        check(net, y)
        if kind == "LayerNormalization":
            like_onnxruntime(net, y)


def test_layer_norm_over_channels_of_an_image():
    """ConvNeXt: the channels of an NHWC image, between two transposes."""
    net = Net()
    x = net("Conv", net.input(2, 3, 9, 8), net.weight(20, 3, 3, 3))
    y = net("LayerNormalization", net("Transpose", x, perm=[0, 2, 3, 1]), net.positive(20), net.normal(20))
    check(net, net("Conv", net("Transpose", y, perm=[0, 3, 1, 2]), net.weight(6, 20, 3, 3)))


def test_layer_norm_with_broadcast_scale():
    net = Net(opset=17)
    check(net, net("LayerNormalization", net.input(3, 4, 5), net.normal(5), net.normal(1), axis=1))


def test_layer_norm_statistics_as_outputs():
    net = Net(opset=17)
    outputs = net("LayerNormalization", net.input(3, 4, 5), net.normal(5), net.normal(5), outputs=3)
    check(net, *outputs, native=False, trivial=True)


@pytest.mark.parametrize("shape", [(2, 5, 30), (1, 33, 9, 7), (64, 3, 5, 5), (2, 4, 3, 4, 5)])
@pytest.mark.parametrize("opset", [1, 6, 22])
def test_instance_norm(shape, opset, like_onnxruntime):
    net = Net(opset=opset)
    y = net("InstanceNormalization", net.input(*shape), net.positive(shape[1]), net.normal(shape[1]), epsilon=1e-2)
    check(net, y)
    if opset >= 6:
        like_onnxruntime(net, y)


def test_instance_norm_in_a_network():
    net = Net()
    x = net("Conv", net.input(2, 3, 17, 16), net.weight(37, 3, 3, 3), pads=[1, 1, 1, 1])
    y = net("Relu", net("InstanceNormalization", x, net.positive(37), net.normal(37)))
    check(net, net("Conv", y, net.weight(8, 37, 3, 3), pads=[1, 1, 1, 1]))


@pytest.mark.parametrize("groups", [1, 2, 6, 12])
@pytest.mark.parametrize("shape", [(2, 12, 20), (2, 12, 7, 6), (1, 12, 3, 4, 5)])
def test_group_norm(groups, shape):
    net = Net(opset=21)
    check(net, net("GroupNormalization", net.input(*shape), net.positive(12), net.normal(12), num_groups=groups))


@pytest.mark.parametrize("activation", ["Relu", "HardSwish", "Sigmoid"])
def test_with_an_activation(activation):
    """The activation is applied in the same step, unless another reader needs what comes before it."""
    for shared in (False, True):
        net = Net(opset=17)
        y = net("InstanceNormalization", net.input(2, 5, 6, 7), net.positive(5), net.normal(5))
        z = net(activation, y)
        subject = check(net, *([y, z] if shared else [z]))
        steps = [record.kernel for record in subject.profile(net.feeds)]
        assert any(s.startswith("unary") and s != "unary.identity" for s in steps) == shared
        net = Net(opset=17)
        check(net, net(activation, net("LayerNormalization", net.input(3, 4, 9), net.normal(9), net.normal(9))))


def test_group_norm_wide():
    for channels, groups in ((768, 2), (512, 1), (96, 32)):
        net = Net(opset=21)
        x = net("Conv", net.input(1, 3, 8, 8), net.weight(channels, 3, 3, 3))
        check(net, net("GroupNormalization", x, net.positive(channels), net.normal(channels), num_groups=groups))


def test_group_norm_as_exporters_spell_it():
    net = Net()
    x = net("Conv", net.input(2, 3, 9, 9), net.weight(16, 3, 3, 3))
    shaped = net("Reshape", x, net.ints(0, 4, -1))
    y = net(
        "InstanceNormalization", shaped, net.constant(np.ones(4, np.float32)), net.constant(np.zeros(4, np.float32))
    )
    back = net("Reshape", y, net.ints(2, 16, 7, 7))
    check(net, net("Add", net("Mul", back, net.positive(16, 1, 1)), net.normal(16, 1, 1)))


@pytest.mark.parametrize("size,beta", [(5, 0.75), (3, 0.5), (4, 0.75), (1, 1.0), (9, 0.3)])
@pytest.mark.parametrize("shape", [(2, 7, 5, 6), (1, 96, 4, 4), (1, 3, 20), (1, 600, 2, 2)])
def test_local_response(size, beta, shape, like_onnxruntime):
    net = Net(opset=13)
    y = net("LRN", net.input(*shape), size=size, beta=beta, alpha=0.1, bias=2.0)
    check(net, y)
    if len(shape) == 4 and size % 2:
        like_onnxruntime(net, y)
