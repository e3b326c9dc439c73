"""Chains of convolutions run band by band: the same numbers as layer by layer, bit for bit."""
from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, compare, session

from infold import _native
from infold.reference import run_float64

CASES = {
    # name: (input, width of the middle, output channels or None, kernel, stride, pads, dilation)
    "project": ((1, 5, 23, 19), None, 7, 3, 1, [1, 1, 1, 1], 1),
    "expand": ((1, 5, 23, 19), 33, None, 3, 1, [1, 1, 1, 1], 1),
    "both": ((1, 8, 24, 20), 40, 8, 3, 1, [1, 1, 1, 1], 1),
    "strided": ((1, 8, 25, 21), 40, 9, 3, 2, [1, 1, 1, 1], 1),
    "batch": ((3, 4, 17, 9), 24, 6, 3, 1, [1, 1, 1, 1], 1),
    "kernel-5": ((2, 4, 19, 23), 17, 6, 5, 1, [2, 2, 2, 2], 1),
    "kernel-5-strided": ((1, 4, 31, 30), 17, 6, 5, 2, [1, 2, 2, 1], 1),
    "dilated": ((1, 4, 21, 20), 16, 6, 3, 1, [3, 3, 3, 3], 3),
    "unpadded": ((1, 4, 21, 20), 16, 6, 3, 1, [0, 0, 0, 0], 1),
    "kernel-below-stride": ((1, 4, 29, 20), 16, 6, 2, 3, [0, 0, 0, 0], 1),
    "more-padding-than-rows": ((1, 4, 3, 6), 16, 6, 5, 1, [4, 2, 4, 2], 1),
    "one-row": ((1, 4, 1, 33), 16, 6, 3, 1, [1, 1, 1, 1], 1),
    "picture": ((1, 3, 45, 38), 24, 10, 3, 1, [1, 1, 1, 1], 1),
}
FIRST = {"picture": (3, 2)}  # kernel and stride of the layer in front, if it is not 1x1


def network(case: str, activation: str | None = "Relu", residual: bool = False):
    shape, middle, project, kernel, stride, pads, dilation = CASES[case]
    net = Net(3)
    x = start = net.input(*shape)
    channels = shape[1]
    if middle is not None:
        first, step = FIRST.get(case, (1, 1))
        weight = net.weight(middle, channels, first, first)
        x, channels = net("Conv", x, weight, net.normal(middle), strides=[step] * 2, pads=[first // 2] * 4), middle
        x = net(activation, x) if activation else x
    x = net("Conv", x, net.weight(channels, 1, kernel, kernel), net.normal(channels), group=channels, strides=[stride] * 2,
            pads=pads,
            dilations=[dilation] * 2)
    x = net(activation, x) if activation else x
    if project is not None:
        x = net("Conv", x, net.weight(project, channels, 1, 1), net.normal(project))
        x = net("Add", x, start) if residual else x
    return net, net.model(x)


def kernels(model, net, **options) -> list[str]:
    return [step.kernel for step in session(model, **options).profile(net.feeds, runs=1)]


@pytest.mark.parametrize("band", [1, 3, 64])
@pytest.mark.parametrize("case", CASES)
def test_bitwise_equal_to_layer_by_layer(case: str, band: int, monkeypatch):
    monkeypatch.setattr("infold.ops.conv_chain._band_rows", lambda links, room, dtype: band)
    net, model = network(case)
    assert kernels(model, net).count("depthwise") == 1  # too small to be worth a chain
    expected = session(model).run(None, net.feeds)
    for threads in (1, 2, 3):
        found = session(model, threads, algorithms={"*": "chain"}).run(None, net.feeds)
        np.testing.assert_array_equal(found[0], expected[0])
    compare(found[0], next(iter(run_float64(model, net.feeds).values())), 3e-6)


@pytest.mark.parametrize("activation", [None, "HardSwish", "Sigmoid"])
def test_epilogues_and_residual(activation: str | None, monkeypatch):
    monkeypatch.setattr("infold.ops.conv_chain._band_rows", lambda links, room, dtype: 4)
    net, model = network("both", activation, residual=True)
    forced = kernels(model, net, algorithms={"*": "chain"})
    assert forced.count("conv") > 2 and "binary.add" not in forced  # more than one band, the residual in the epilogue
    found, expected = (session(model, algorithms=a).run(None, net.feeds)[0] for a in ({"*": "chain"}, {}))
    np.testing.assert_array_equal(found, expected)


def test_a_middle_that_others_read_stays_whole():
    net = Net(1)
    x = net.input(1, 4, 12, 12)
    wide = net("Conv", x, net.weight(16, 4, 1, 1))
    out = net("Conv", wide, net.weight(16, 1, 3, 3), group=16)
    model = net.model(out, net("Relu", wide))
    assert kernels(model, net, algorithms={"*": "chain"}).count("conv") == 1


def test_chosen_where_the_middle_leaves_the_cache():
    def bands(size: int, width: int | None = None) -> int:
        net = Net(1)
        x = net("Conv", net.input(1, 16, size, width or size), net.weight(96, 16, 1, 1))
        model = net.model(net("Conv", net("Conv", x, net.weight(96, 1, 3, 3), group=96, pads=[1] * 4), net.weight(24, 96, 1, 1)))
        return kernels(model, net).count("depthwise")

    assert bands(8) == 1 and bands(160) > 1
    assert bands(40, (_native.cache_bytes(2) or 1 << 19) // 5 // (4 * 96)) > 10  # of a row or two each: wider ones do not fit


def test_threads_do_not_compute_much_of_the_middle_twice(monkeypatch):
    """At 14 x 14 two bands under a 5x5 window would share 4 of 14 rows; at 112 x 112 they hardly count."""
    monkeypatch.setattr("infold._native.cache_bytes", lambda level: 1 << 20)

    def chosen(size: int, channels: int, threads: int) -> bool:
        net = Net(1)
        x = net("Conv", net.input(1, 16, size, size), net.weight(channels, 16, 1, 1))
        x = net("Conv", x, net.weight(channels, 1, 5, 5), group=channels, pads=[2] * 4)
        subject = session(net.model(net("Conv", x, net.weight(16, channels, 1, 1))), threads)
        return any(step.side_by_side for step in subject.profile(net.feeds, runs=1))

    assert chosen(14, 700, 1) and not chosen(14, 700, 2)
    assert chosen(112, 64, 1) and chosen(112, 64, 2)
