"""Conv of every rank, grouping and padding, and what it takes into its epilogue."""
from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check, session

from infold import _native
from infold.errors import ShapeError

CASES = {
    # name: (x shape, weight shape, attributes)
    "1d": ((2, 3, 17), (5, 3, 4), dict(pads=[1, 2], strides=[2])),
    "2d": ((1, 5, 9, 11), (7, 5, 3, 3), dict(pads=[1, 1, 1, 1])),
    "3d": ((1, 2, 5, 6, 7), (3, 2, 3, 2, 3), dict(pads=[1, 0, 1, 0, 1, 2])),
    "3d-strided": ((2, 4, 6, 5, 7), (4, 2, 2, 3, 3), dict(strides=[2, 1, 2], group=2, dilations=[1, 2, 1])),
    "pointwise": ((2, 19, 7, 5), (33, 19, 1, 1), {}),
    "pointwise-strided": ((2, 8, 7, 5), (9, 8, 1, 1), dict(strides=[2, 3])),
    "pointwise-padded": ((1, 8, 5, 5), (9, 8, 1, 1), dict(pads=[1, 0, 2, 1])),
    "one-channel": ((2, 1, 12, 12), (6, 1, 5, 5), dict(pads=[2, 2, 2, 2])),
    "rectangle": ((1, 3, 10, 13), (4, 3, 1, 7), dict(pads=[0, 3, 0, 3])),
    "dilated": ((1, 3, 15, 14), (4, 3, 3, 3), dict(dilations=[2, 3], pads=[2, 3, 2, 3])),
    "strided": ((2, 6, 14, 15), (8, 6, 3, 3), dict(strides=[2, 2], pads=[1, 1, 1, 1])),
    "stride-beyond-kernel": ((1, 3, 13, 13), (4, 3, 2, 2), dict(strides=[3, 4])),
    "asymmetric": ((1, 3, 8, 8), (4, 3, 3, 3), dict(pads=[0, 2, 1, 0])),
    "wide-padding": ((1, 3, 4, 4), (4, 3, 3, 3), dict(pads=[5, 6, 4, 5])),
    "padding-only-pixels": ((1, 3, 2, 2), (4, 3, 5, 5), dict(pads=[4, 4, 4, 4])),
    "same-upper": ((1, 3, 11, 14), (4, 3, 4, 3), dict(auto_pad="SAME_UPPER", strides=[2, 3])),
    "same-lower": ((1, 3, 11, 14), (4, 3, 4, 3), dict(auto_pad="SAME_LOWER", strides=[2, 3])),
    "same-dilated": ((1, 3, 11, 14), (4, 3, 4, 3), dict(auto_pad="SAME_UPPER", dilations=[2, 2])),
    "valid": ((1, 3, 11, 14), (4, 3, 4, 3), dict(auto_pad="VALID")),
    "grouped": ((2, 12, 7, 7), (18, 4, 3, 3), dict(group=3, pads=[1, 1, 1, 1])),
    "grouped-wide": ((1, 64, 6, 6), (96, 32, 3, 3), dict(group=2, pads=[1, 1, 1, 1])),
    "grouped-narrow": ((2, 60, 7, 7), (60, 3, 3, 3), dict(group=20, pads=[1, 1, 1, 1])),
    "grouped-1d": ((1, 64, 9), (128, 2, 5), dict(group=32, pads=[2, 1], strides=[2])),
    "groups-of-2": ((2, 38, 7, 9), (38, 2, 3, 3), dict(group=19, pads=[1, 1, 1, 1])),
    "groups-of-4": ((1, 36, 9, 15), (36, 4, 3, 3), dict(group=9, pads=[1, 1, 1, 1])),
    "groups-of-4-strided": ((2, 64, 9, 15), (64, 4, 3, 3), dict(group=16, pads=[1, 1, 1, 1], strides=[2, 2])),
    "groups-of-4-dilated": ((1, 64, 9, 9), (64, 4, 5, 3), dict(group=16, pads=[2, 2, 2, 2], dilations=[1, 2])),
    "groups-of-8": ((2, 40, 7, 6), (40, 8, 3, 3), dict(group=5, pads=[1, 1, 1, 1])),
    "groups-of-2-3d": ((1, 6, 4, 5, 6), (6, 2, 3, 3, 3), dict(group=3, pads=[1] * 6)),
    "one-group-of-8": ((1, 8, 9, 20), (8, 8, 3, 3), dict(pads=[1, 1, 1, 1])),
    "depthwise": ((2, 21, 9, 8), (21, 1, 3, 3), dict(group=21, pads=[1, 1, 1, 1], strides=[2, 1])),
    "depthwise-dilated": ((1, 35, 9, 9), (35, 1, 5, 3), dict(group=35, dilations=[1, 2], pads=[2, 2, 2, 2])),
    "depthwise-multiplied": ((1, 6, 9, 9), (18, 1, 3, 3), dict(group=6, pads=[1, 1, 1, 1])),
    "depthwise-1d": ((2, 6, 20), (6, 1, 7), dict(group=6, pads=[3, 3])),
    "depthwise-3d": ((1, 5, 4, 5, 6), (5, 1, 3, 3, 3), dict(group=5, pads=[1] * 6)),
    "long-reduction": ((1, 300, 5, 5), (17, 300, 3, 3), dict(pads=[1, 1, 1, 1])),
    "channels-256": ((1, 256, 4, 4), (256, 256, 1, 1), {}),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("case", CASES)
def test_attributes(case: str, bias: bool):
    shape, w_shape, attributes = CASES[case]
    net = Net(1)
    inputs = [net.input(*shape), net.weight(*w_shape), *([net.normal(w_shape[0])] if bias else [])]
    check(net, net("Conv", *inputs, **attributes))


def test_weights_computed_in_the_run():
    net = Net()
    x, w = net.input(2, 5, 6, 6), net.input(7, 5, 1, 1)
    check(net, net("Conv", x, w))


def test_negative_padding_is_no_legal_convolution():
    net = Net()
    y = net("Conv", net.input(1, 3, 9, 9), net.weight(4, 3, 3, 3), pads=[-1, 0, 1, -2])
    with pytest.raises(ShapeError, match="pads must not contain negative values"):
        session(net.model(y))


def test_unnamed_nodes_that_share_a_weight_keep_their_own_bias_and_slope():
    net = Net()
    x, w = net.input(1, 8, 6, 6), net.weight(8, 8, 1, 1)
    outputs = [net("PRelu", net("Conv", x, w, net.normal(8)), net.normal(8, 1, 1)) for _ in range(3)]
    depthwise = net.weight(8, 1, 3, 3)
    outputs += [net("Conv", x, depthwise, net.normal(8), group=8) for _ in range(2)]
    transposed = net.weight(8, 3, 2, 2)
    outputs += [net("ConvTranspose", x, transposed, net.normal(3)) for _ in range(2)]
    check(net, *outputs)


ACTIVATIONS = {
    "Relu": {}, "LeakyRelu": dict(alpha=0.2), "Sigmoid": {}, "HardSwish": {}, "HardSigmoid": dict(alpha=0.3, beta=0.4), "Tanh": {},
    "Elu": dict(alpha=0.7), "Selu": {}, "Celu": dict(alpha=1.3), "Softplus": {}, "Softsign": {}, "Mish": {}, "Gelu": {}, "Abs": {},
    "ThresholdedRelu": dict(alpha=0.3),
}


@pytest.mark.parametrize("kind", ["plain", "depthwise", "residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_epilogue(activation: str, kind: str):
    net, channels = Net(2), 21
    x = net.input(1, channels, 6, 7)
    groups = channels if kind == "depthwise" else 1
    y = net("Conv", x, net.weight(channels, channels // groups, 3, 3), net.normal(channels), group=groups, pads=[1, 1, 1, 1])
    if kind == "residual":
        y = net("Add", x, y)
    subject = check(net, net(activation, y, **ACTIVATIONS[activation]))
    steps = subject.profile(net.feeds, runs=1)
    assert [s.kernel for s in steps if s.op in ("unary", "binary")] == ["unary.identity"] * 2  # into the layout and out of it


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bounds", [(-0.5, 0.5), (0.0, 6.0), (None, 0.3), (0.1, None), (None, None)])
def test_clip_in_the_epilogue(bounds, residual: bool):
    net = Net(3)
    x = net.input(1, 6, 5, 5)
    y = net("Conv", x, net.weight(6, 6, 1, 1))
    y = net("Add", y, x) if residual else y
    check(net, net("Clip", y, *(None if b is None else net.constant(np.float32(b)) for b in bounds)))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("slope", [(6, 1, 1), (1, 6, 1, 1), (1,), (1, 1, 1), (6, 5, 5), (1, 1, 5)])
def test_prelu_after_conv(groups: int, slope: tuple):
    net = Net(4)
    y = net("Conv", net.input(1, 6, 5, 5), net.weight(6, 6 // groups, 1, 1), group=groups)
    check(net, net("PRelu", y, net.normal(*slope)))


def test_what_others_read_is_not_swallowed_by_the_epilogue():
    net = Net(5)
    x = net.input(1, 6, 5, 5)
    a = net("Conv", x, net.weight(6, 6, 3, 3), pads=[1, 1, 1, 1])
    b = net("Add", a, x)
    c = net("Relu", b)
    check(net, a, b, c, net("Add", a, a), net("Sum", c, c), net("Mul", net("Relu", a), a))


def test_residual_that_comes_later():
    """Add of two convolutions: whichever is second takes the first as its residual; an Add of itself does not."""
    net = Net(6)
    x = net.input(2, 6, 8, 8)
    a = net("Conv", x, net.weight(8, 6, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    b = net("Conv", x, net.weight(8, 6, 1, 1), strides=[2, 2])
    y = net("Conv", x, net.weight(8, 6, 2, 2), strides=[2, 2])
    check(net, net("Relu", net("Add", a, b)), net("Relu", net("Add", net("Sigmoid", b), y)))


def test_residual_of_broadcast_shape_is_added_apart():
    net = Net(7)
    x = net.input(1, 4, 6, 6)
    y = net("Conv", x, net.weight(4, 4, 1, 1))
    check(net, net("Relu", net("Add", y, net.input(1, 4, 1, 1))), net("Add", net("Conv", x, net.weight(1, 4, 1, 1)), x))


def test_a_subgraph_that_reads_the_convolution():
    net = Net(8)
    y = net("Conv", net.input(1, 4, 6, 6), net.weight(4, 4, 1, 1))
    bodies = [onnx.helper.make_graph([onnx.helper.make_node(op, [y], ["inner"])], op, [],
                                     [onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)])
                for op in ("Relu", "Neg")]
    out = net("If", net.feed(np.array(False)), then_branch=bodies[0], else_branch=bodies[1])
    check(net, out, native=False)


def test_a_graph_output_inside_the_epilogue_stays_apart():
    net = Net(9)
    y = net("Conv", net.input(1, 4, 6, 6), net.weight(4, 4, 1, 1))
    subject = session(net.model(y, net("Relu", y)))
    first, second = subject.run(None, net.feeds)
    np.testing.assert_array_equal(np.maximum(first, 0), second)
    assert (first < 0).any()


@pytest.mark.parametrize("case", CASES)
def test_depthwise_has_its_own_kernel(case: str):
    shape, w_shape, attributes = CASES[case]
    net = Net(1)
    x = net.input(*shape)
    model = net.model(net("Conv", x, net.weight(*w_shape), **attributes))
    kernels = {step.kernel for step in session(model).profile(net.feeds, runs=1)}
    if case.startswith("depthwise"):
        assert ("depthwise" in kernels) == (case != "depthwise-multiplied")


@pytest.mark.parametrize("case", [case for case in CASES if "-of-" in case])
def test_small_groups_meet_in_registers(case: str):
    """In the depthwise kernel, where a vector holds whole groups; as in the product, but for rounding."""
    shape, w_shape, attributes = CASES[case]
    net = Net(1)
    y = net("Relu", net("Conv", net.input(*shape), net.weight(*w_shape), net.normal(w_shape[0]), **attributes))
    grouped, direct = (session(net.model(y), algorithms={"*": way}) for way in ("grouped", "direct"))
    kernels, lanes = {step.kernel for step in grouped.profile(net.feeds, runs=1)}, _native.isa_info(grouped.isa)["lanes"]
    assert ("depthwise" in kernels) == (lanes >= 8 and lanes % w_shape[1] == 0)
    expected = direct.run(None, net.feeds)[0]
    np.testing.assert_allclose(grouped.run(None, net.feeds)[0], expected, rtol=1e-4, atol=1e-5)
    assert (expected > 0).any()
