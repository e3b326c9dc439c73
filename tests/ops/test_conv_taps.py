"""Convolution by taps: only pixels inside the image are multiplied, and results are those of the direct convolution."""
from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, compare, session

from infold.reference import run_float64

CASES = {
    # name: (x shape, weight shape, attributes)
    "square": ((2, 19, 9, 11), (33, 19, 3, 3), dict(pads=[4, 4, 4, 4], dilations=[4, 4])),
    "taps-that-meet-nothing": ((1, 8, 7, 5), (5, 8, 3, 3), dict(pads=[9, 3, 9, 3], dilations=[9, 3])),
    "one-way": ((1, 8, 1, 40), (7, 8, 1, 5), dict(pads=[0, 18, 0, 18], dilations=[1, 9])),
    "strided": ((2, 6, 13, 14), (9, 6, 3, 3), dict(pads=[3, 4, 3, 4], dilations=[3, 4], strides=[2, 3])),
    "line": ((1, 16, 50), (20, 16, 3), dict(pads=[20, 20], dilations=[20])),
    "volume": ((1, 6, 5, 6, 7), (9, 6, 3, 3, 1), dict(pads=[3, 2, 0, 3, 2, 0], dilations=[3, 2, 1])),
    "even": ((1, 6, 9, 9), (4, 6, 2, 2), dict(pads=[0, 0, 5, 5], dilations=[5, 5])),
}


def kernels(subject, feeds) -> list[str]:
    return [s.kernel for s in subject.profile(feeds, runs=1) if s.op == "conv"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ending", ["none", "activation", "residual"])
def test_cases(case: str, ending: str):
    shape, w, attributes = CASES[case]
    net = Net(7)
    x = net.input(*shape)
    y = net("Conv", x, net.weight(*w), net.normal(w[0]), **attributes)
    if ending == "residual":
        y = net("Add", y, net("Conv", x, net.weight(w[0], *w[1:]), **attributes))
    if ending != "none":
        y = net("HardSwish" if ending == "activation" else "Relu", y)
    model, found = net.model(y), []
    expected = run_float64(model, net.feeds)[y]
    for threads in (1, 2):
        subject = session(model, threads, algorithms={"*": "taps"})
        assert len(kernels(subject, net.feeds)) > 1 + (ending == "residual")
        found.append(subject.run([y], net.feeds)[0])
    np.testing.assert_array_equal(*found)
    compare(found[0], expected, 2e-6)


def test_only_where_a_tap_sees_the_image_everywhere():
    """Else no product has all pixels, and none could end with the activation."""
    net = Net(8)
    y = net("Conv", net.input(1, 24, 9, 9), net.weight(24, 24, 2, 2), pads=[2, 2, 3, 3], dilations=[5, 5])
    subject = session(net.model(y), algorithms={"*": "taps"})
    assert kernels(subject, net.feeds) == ["conv"]
    compare(subject.run([y], net.feeds)[0], run_float64(net.model(y), net.feeds)[y], 2e-6)


def steps_of(dilation: int, size: int) -> list[str]:
    net = Net(9)
    y = net("Conv", net.input(1, 256, size, size), net.weight(32, 256, 3, 3), pads=[dilation] * 4, dilations=[dilation] * 2)
    return [s.kernel for s in session(net.model(y)).profile(net.feeds, runs=1) if s.op in ("conv", "winograd", "fill")]


def test_choice():
    """Far taps are left out one by one, near ones are Winograd's; neither reads zeros around the image, so nothing writes them."""
    assert steps_of(12, 28) == ["fill", *["conv"] * 9]
    assert steps_of(24, 28) == ["fill", *["conv"] * 9]
    assert steps_of(2, 28) == ["winograd.2x2"]
