"""ConvTranspose: strides, groups, output padding and output shape, as phases of ordinary convolutions."""
from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, check, session

from infold.reference import run_float64

CASES = {
    # name: (x shape, weight shape (channels, filters / group, ...), attributes)
    "plain": ((1, 3, 5, 6), (3, 4, 3, 3), {}),
    "pointwise": ((1, 3, 5, 6), (3, 4, 1, 1), {}),
    "strided": ((2, 5, 5, 6), (5, 4, 3, 3), dict(strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])),
    "two-by-two": ((1, 8, 6, 6), (8, 5, 2, 2), dict(strides=[2, 2])),
    "four-by-four": ((1, 8, 6, 6), (8, 5, 4, 4), dict(strides=[2, 2], pads=[1, 1, 1, 1])),
    "stride-beyond-kernel": ((1, 3, 4, 5), (3, 4, 2, 2), dict(strides=[3, 4])),
    "stride-beyond-kernel-padded-out": ((1, 3, 4, 5), (3, 4, 1, 1), dict(strides=[3, 4], output_padding=[2, 1])),
    "uneven-strides": ((1, 3, 4, 5), (3, 4, 3, 2), dict(strides=[1, 3])),
    "dilated": ((1, 3, 6, 5), (3, 4, 3, 3), dict(dilations=[2, 3], strides=[2, 1])),
    "dilated-evenly": ((1, 3, 6, 5), (3, 4, 2, 2), dict(dilations=[2, 2], strides=[2, 2])),
    "asymmetric": ((1, 3, 6, 5), (3, 4, 3, 3), dict(pads=[0, 1, 2, 0], strides=[2, 2])),
    "grouped": ((2, 6, 5, 5), (6, 4, 3, 3), dict(group=3, strides=[2, 2])),
    "depthwise": ((1, 6, 5, 5), (6, 1, 4, 4), dict(group=6, strides=[2, 2], pads=[1, 1, 1, 1])),
    "output-shape": ((1, 3, 5, 6), (3, 4, 3, 3), dict(strides=[2, 2], output_shape=[10, 12])),
    "output-shape-odd": ((1, 3, 5, 6), (3, 4, 4, 4), dict(strides=[2, 3], output_shape=[9, 17])),
    "same-upper": ((1, 3, 5, 6), (3, 4, 3, 4), dict(strides=[2, 2], auto_pad="SAME_UPPER")),
    "same-lower": ((1, 3, 5, 6), (3, 4, 3, 4), dict(strides=[2, 2], auto_pad="SAME_LOWER")),
    "same-short": ((1, 3, 5, 6), (3, 4, 1, 2), dict(strides=[3, 3], auto_pad="SAME_UPPER")),  # not stride times the input
    "valid": ((1, 3, 5, 6), (3, 4, 3, 4), dict(strides=[2, 2], auto_pad="VALID")),
    "1d": ((2, 3, 9), (3, 4, 5), dict(strides=[3], pads=[1, 2], output_padding=[2])),
    "3d": ((1, 2, 3, 4, 3), (2, 3, 3, 2, 3), dict(strides=[2, 1, 2], pads=[1, 0, 1, 1, 0, 1])),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("case", CASES)
def test_attributes(case: str, bias: bool):
    shape, w_shape, attributes = CASES[case]
    net = Net(1)
    filters = w_shape[1] * attributes.get("group", 1)
    check(net, net("ConvTranspose", net.input(*shape), net.normal(*w_shape), *([net.normal(filters)] if bias else []),
                   **attributes))


@pytest.mark.parametrize("group", [1, 2])
def test_epilogue(group: int):
    """A residual and an activation reach every phase; PReLU's slopes follow the groups."""
    net = Net(2)
    x = net.input(1, 4, 5, 5)
    y = net("ConvTranspose", x, net.normal(4, 6 // group, 2, 2), net.normal(6), strides=[2, 2], group=group)
    z = net("PRelu", net("ConvTranspose", x, net.normal(4, 6 // group, 3, 3), strides=[2, 2], group=group, pads=[1, 1, 0, 0]),
            net.normal(6, 1, 1))
    check(net, net("Relu", net("Add", y, z)))


def test_a_chain_upwards():
    net = Net(3)
    x, channels = net.input(2, 12, 3, 5), 12
    for wanted in (9, 7, 4):
        x = net("LeakyRelu", net("ConvTranspose", x, net.weight(channels, wanted, 4, 4), strides=[2, 2], pads=[1] * 4))
        x, channels = net("Conv", x, net.weight(wanted, wanted, 3, 3), pads=[1] * 4), wanted
    check(net, x)


@pytest.mark.parametrize("attributes", [dict(auto_pad="SAME_UPPER"), dict(output_shape=[13, 13])], ids=["same", "output-shape"])
def test_phases_of_several_input_sizes(attributes: dict):
    """The padding follows from the size: two plans of one session must not share packed phases."""
    net = Net(4)
    x = net.input(1, 3, 6, 6, dims=(1, 3, "h", "w"))
    y = net("ConvTranspose", x, net.normal(3, 4, 5, 5), strides=[3, 3] if "auto_pad" in attributes else [2, 2], **attributes)
    model = net.model(y)
    subject = session(model)
    for size in (6, 5, 6):
        feeds = {x: net.rng.standard_normal((1, 3, size, size)).astype(np.float32)}
        expected = run_float64(model, feeds)[y]
        assert np.abs(subject.run(None, feeds)[0] - expected).max() <= 3e-6 * np.abs(expected).max()
    assert subject.report.fallbacks == []
