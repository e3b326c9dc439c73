"""BatchNormalization that stays a step of its own: every opset's form, any rank, and the activation after it."""
from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, check, session


def statistics(net: Net, channels: int) -> list[str]:
    return [net.normal(channels), net.normal(channels), net.normal(channels), net.positive(channels)]


FORMS = [(1, dict(is_test=1, consumed_inputs=[0, 0, 0, 1, 1])), (6, dict(is_test=1)), (7, {}), (7, dict(momentum=0.5)), (9, dict(epsilon=0.1)),
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


def test_statistics_of_the_batch():
    net = Net(5, 15)
    x = net.input(4, 5, 6, 6)
    outputs = net("BatchNormalization", x, *statistics(net, 5), training_mode=1, outputs=3)
    check(net, *outputs, native=False)


def test_a_variance_that_makes_no_sense_stays_what_it_is():
    """var + epsilon < 0: NaN in the channel concerned, nothing in the others."""
    net = Net(6)
    x = net.input(1, 3, 4, 4)
    scale, bias, mean, _ = statistics(net, 3)
    y = net("BatchNormalization", x, scale, bias, mean, net.constant(np.array([1, -1, 2], np.float32)))
    found = session(net.model(y)).run(None, net.feeds)[0]
    assert np.isnan(found[0, 1]).all() and np.isfinite(found[0, [0, 2]]).all()
