"""Convolution by Winograd's minimal filtering: its algebra, exactly, and its results beside those of the direct convolution."""
from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_harness import Net, compare, session

from infold.ops.conv_winograd import POINTS, filter_transform
from infold.reference import run_float64

numbers = st.fractions(min_value=-9, max_value=9, max_denominator=16)


def polynomial(*roots: Fraction) -> list[Fraction]:
    """Coefficients of the product of (x - root), lowest first."""
    out = [Fraction(1)]
    for root in roots:
        out = [a - root * b for a, b in zip([Fraction(0), *out], [*out, Fraction(0)])]
    return out


def transforms(side: int):
    """(B^T, A^T) of Lavin and Gray, from the points alone."""
    points = [Fraction(0), *(sign * Fraction(p) for p in POINTS[side] for sign in (1, -1))]
    rows = [polynomial(*(q for q in points if q != p)) for p in points] + [polynomial(*points)]
    into = [row + [Fraction(0)] * (side + 2 - len(row)) for row in rows]
    back = [[p ** k for p in points] + [Fraction(int(k == side - 1))] for k in range(side)]
    return into, back


def times(matrix, vector):
    return [sum((a * b for a, b in zip(row, vector)), Fraction(0)) for row in matrix]


@pytest.mark.parametrize("side", [2, 4])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_transforms_are_exactly_a_convolution(side: int, data):
    d = data.draw(st.lists(numbers, min_size=side + 2, max_size=side + 2))
    g = data.draw(st.lists(numbers, min_size=3, max_size=3))
    into, back = transforms(side)
    products = [a * b for a, b in zip(times(into, d), times(filter_transform(side), g))]
    assert times(back, products) == [sum(d[i + k] * g[k] for k in range(3)) for i in range(side)]


@pytest.mark.parametrize("side", [2, 4])
def test_constants_of_the_data_transforms_are_exact_in_float32(side: int):
    for matrix in transforms(side):
        assert all(Fraction(float(np.float32(x))) == x for row in matrix for x in row)


CASES = {
    # name: (x shape, filters, attributes)
    "even": ((1, 32, 16, 16), 48, dict(pads=[1, 1, 1, 1])),
    "odd": ((2, 5, 9, 11), 7, dict(pads=[1, 1, 1, 1])),
    "no-padding": ((1, 19, 13, 6), 33, {}),
    "asymmetric": ((1, 64, 7, 7), 33, dict(pads=[0, 2, 1, 0])),
    "wide-padding": ((1, 3, 4, 4), 4, dict(pads=[5, 6, 4, 5])),
    "same": ((3, 8, 5, 30), 9, dict(auto_pad="SAME_UPPER")),
    "one-pixel": ((1, 6, 3, 3), 5, {}),
    "deep": ((1, 300, 6, 6), 40, dict(pads=[1, 1, 1, 1])),
    "many-tiles": ((1, 17, 66, 70), 20, dict(pads=[1, 1, 1, 1])),
    "volume": ((2, 19, 6, 9, 8), 13, dict(pads=[1, 1, 1, 1, 1, 1])),
    "volume-strided": ((1, 6, 9, 8, 5), 5, dict(pads=[2, 1, 0, 1, 0, 2], strides=[2, 1, 1], dilations=[2, 1, 1])),
    "dilated": ((2, 19, 14, 11), 33, dict(pads=[2, 3, 2, 3], dilations=[2, 3])),
    "dilated-odd-padding": ((1, 6, 12, 9), 5, dict(pads=[1, 5, 4, 0], dilations=[3, 2])),
}


def algorithms_of(subject, feeds) -> set[str]:
    return {s.kernel for s in subject.profile(feeds, runs=1) if s.op in ("conv", "winograd")}


def agree(net: Net, output: str, algorithm: str) -> None:
    """Against float64 within F(4x4)'s error, near the direct convolution, and the same bits whatever the threads."""
    model = net.model(output)
    expected = run_float64(model, net.feeds)[output]
    found = []
    for threads in (1, 2, 3):
        subject = session(model, threads, algorithms={"*": algorithm})
        assert algorithms_of(subject, net.feeds) == {f"winograd.{algorithm[-1]}x{algorithm[-1]}"}
        found.append(subject.run([output], net.feeds)[0])
        np.testing.assert_array_equal(found[0], found[-1])
    compare(found[0], expected, 3e-6)
    direct = session(model, algorithms={"*": "direct"})
    assert algorithms_of(direct, net.feeds) == {"conv"}
    compare(found[0], direct.run([output], net.feeds)[0].astype(np.float64), 4e-6)


@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4"])
@pytest.mark.parametrize("case", CASES)
def test_shapes(case: str, algorithm: str):
    shape, filters, attributes = CASES[case]
    net = Net(1)
    weight = net.weight(filters, shape[1], *[3] * (len(shape) - 2))
    agree(net, net("Conv", net.input(*shape), weight, net.normal(filters), **attributes), algorithm)


@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4"])
def test_planes_of_a_volume(algorithm: str):
    """(2+1)D networks: a plane is an image of the batch; a residual is added to the sum over three planes."""
    net = Net(10)
    x = net.input(2, 7, 5, 8, 9)
    y = net("Relu", net("Conv", x, net.weight(12, 7, 1, 3, 3), net.normal(12), pads=[0, 1, 1, 0, 1, 1], strides=[2, 1, 1]))
    y = net("Relu", net("Add", net("Conv", y, net.weight(12, 12, 3, 3, 3), net.normal(12), pads=[1] * 6), y))
    agree(net, y, algorithm)


def test_no_plane_that_meets_the_image_everywhere():
    """A sum over planes needs one of all pixels, which ends with bias and activation."""
    net = Net(11)
    y = net("Conv", net.input(1, 24, 3, 6, 6), net.weight(24, 24, 2, 3, 3), pads=[2, 1, 1, 2, 1, 1], dilations=[2, 1, 1])
    assert algorithms_of(session(net.model(y), algorithms={"*": "winograd2"}), net.feeds) == {"conv"}


@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4"])
@pytest.mark.parametrize("activation", ["Relu", "HardSwish", "PRelu"])
def test_epilogue_and_residual(activation: str, algorithm: str):
    net, channels = Net(2), 37
    x = net.input(1, channels, 10, 7)
    y = net("Add", net("Conv", x, net.weight(channels, channels, 3, 3), pads=[1, 1, 1, 1]), x)
    y = net(activation, y, *([net.normal(channels, 1, 1)] if activation == "PRelu" else []))
    agree(net, y, algorithm)


def test_inside_a_concat_and_after_each_other():
    net = Net(3)
    x = net.input(1, 20, 12, 12)
    a = net("Relu", net("Conv", x, net.weight(13, 20, 3, 3), pads=[1, 1, 1, 1]))
    b = net("Concat", x, a, axis=1)
    agree(net, net("Conv", b, net.weight(18, 33, 3, 3), pads=[1, 1, 1, 1]), "winograd4")


@pytest.mark.parametrize("attributes,groups", [(dict(strides=[2, 2]), 1), (dict(dilations=[5, 5]), 1), ({}, 2)])
def test_other_convolutions_stay_direct(attributes, groups: int):
    net = Net(4)
    y = net("Conv", net.input(1, 48, 12, 12), net.weight(48, 48 // groups, 3, 3), group=groups, **attributes)
    assert algorithms_of(session(net.model(y), algorithms={"*": "winograd4"}), net.feeds) == {"conv"}


def chosen(precision: str, x: tuple, filters: int, threads: int = 1) -> str:
    """The kernel that the planner takes for a padded 3x3 convolution."""
    net = Net(5)
    y = net("Conv", net.input(*x), net.weight(filters, x[1], 3, 3), pads=[1, 1, 1, 1])
    kernels = [s.kernel for s in session(net.model(y), threads, precision=precision).profile(net.feeds, runs=1)]
    return next(k for k in kernels if k.startswith(("conv", "winograd")))


def test_choice():
    assert chosen("highest", (1, 128, 28, 28), 128) == "winograd.2x2"  # no less accurate than the direct sum
    assert chosen("highest", (1, 64, 28, 28), 64) == "winograd.2x2"
    assert chosen("high", (1, 64, 28, 28), 64) == "winograd.4x4"
    assert chosen("highest", (1, 3, 28, 28), 64) == "conv"  # too few channels to pay for the transforms
    assert chosen("highest", (1, 256, 2, 2), 256) == "conv"  # all that is to do is to fetch the filters
    assert chosen("high", (1, 128, 3, 3), 128).startswith("conv")  # more weights to read than pixels to use them


def test_infinities_stay_where_they_are_not_read():
    """An infinity spoils the outputs of its own tiles only."""
    net = Net(6)
    x = net.input(1, 4, 24, 24)
    y = net("Conv", x, net.weight(4, 4, 3, 3), pads=[1, 1, 1, 1])
    subject = session(net.model(y), algorithms={"*": "winograd4"})
    clean = subject.run(None, net.feeds)[0]
    net.feeds[x][0, 0, 2, 2] = np.inf
    spoilt = subject.run(None, net.feeds)[0]
    np.testing.assert_array_equal(spoilt[..., 4:, :], clean[..., 4:, :])
    assert not np.isfinite(spoilt[..., 1:4, 1:4]).any()
