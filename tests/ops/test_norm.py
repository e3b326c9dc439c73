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
        check(net, y, tolerance=2e-6)
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


SHAPES = [(7,), (7, 5), (3, 6, 9), (2, 7, 4, 3), (64, 3, 2, 5), (1, 65, 33, 31), (2, 6, 3, 4, 5)]


def stored(net: Net, shape: tuple, layout: str) -> str:
    """A value kept as rows or with its channels last; the mean is ten times the deviation."""
    x = net.feed((net.rng.standard_normal(shape) + 10).astype(np.float32))
    return net("MaxPool", x, kernel_shape=[1] * (len(shape) - 2)) if layout == "channels last" else x


def layouts(test):
    """Every shape above as rows and, from rank 3 on, channels last."""
    cases = [(shape, layout) for shape in SHAPES for layout in ("rows", "channels last") if len(shape) > 2 or layout == "rows"]
    return pytest.mark.parametrize("shape, layout", cases, ids=str)(test)


@layouts
def test_layer_norm_statistics_as_outputs(shape, layout):
    for axis in range(len(shape)):
        net = Net(opset=17)
        affine = [net.normal(*shape[axis:]) for _ in range(2)]
        outputs = net("LayerNormalization", stored(net, shape, layout), *affine, axis=axis, outputs=3)
        check(net, *outputs, trivial=np.prod(shape[:axis]) < 20, tolerance=2e-6)


def test_one_of_the_statistics():
    for kept in (1, 2):
        net = Net(opset=17)
        outputs = net("LayerNormalization", net.input(3, 4, 5), net.normal(5), outputs=3)
        net.nodes[-1].output[3 - kept] = ""
        check(net, outputs[0], outputs[kept])


@layouts
@pytest.mark.parametrize("p", [1, 2])
def test_lp(p, shape, layout, like_onnxruntime):
    for axis in range(-1, len(shape)):
        net = Net(opset=22 if axis % 2 else 1)
        x = stored(net, shape, layout)
        net.feeds[next(iter(net.feeds))] *= net.rng.choice([-1, 1], shape).astype(np.float32)
        y = net("LpNormalization", x, axis=axis, p=p)
        check(net, y, tolerance=2e-6, trivial=shape[axis] == 1)
        if net.opset == 1:
            like_onnxruntime(net, y)


def test_lp_of_nothing_but_zeros():
    net = Net(opset=22)
    x = net.input(4, 5)
    net.feeds[x][2] = 0
    for p in (1, 2):
        check(net, net("LpNormalization", x, p=p))


@layouts
@pytest.mark.parametrize("opset", [9, 13])
def test_mean_variance(opset, shape, layout):
    for axes in (None, [0], [-2, -1], [0, 1], [0, 2]):
        if len(shape) > max(np.abs(axes or [3])):
            net = Net(opset=opset)
            check(net, net("MeanVarianceNormalization", stored(net, shape, layout), axes=axes), tolerance=2e-6,
                  trivial=all(shape[axis] == 1 for axis in axes or []))


@layouts
def test_instance_and_group_norm_in_any_layout(shape, layout):
    for groups in {1, shape[1], *(g for g in (2, 3, 5, 13) if shape[1] % g == 0)} if len(shape) > 1 else ():
        net = Net(opset=21)
        affine = [net.normal(shape[1]), net.normal(shape[1])]
        y = net("GroupNormalization", stored(net, shape, layout), *affine, num_groups=groups)
        check(net, y, tolerance=2e-6)
        if groups == shape[1] and len(shape) > 2:
            net = Net(opset=21)
            affine = [net.normal(shape[1]), net.normal(shape[1])]
            check(net, net("InstanceNormalization", stored(net, shape, layout), *affine), tolerance=2e-6)


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
