"""Binary and variadic operators: broadcasting of every rank, old opsets' attributes, and mixed layouts."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_harness import Net, check, session

BINARY = ["Add", "Sub", "Mul", "Div", "Pow"]
VARIADIC = ["Sum", "Mean", "Max", "Min"]


def second(net: Net, op: str, *shape: int) -> str:
    """An input that keeps Div and Pow tame."""
    return net.feed(net.rng.uniform(0.5, 2, shape).astype(np.float32)) if op in ("Div", "Pow") else net.input(*shape)


def first(net: Net, op: str, *shape: int) -> str:
    return net.feed(net.rng.uniform(0.1, 2, shape).astype(np.float32)) if op == "Pow" else net.input(*shape)


SHAPES = [((3, 4), (3, 4)), ((3, 4), ()), ((), (3, 4)), ((3, 4), (4,)), ((3, 4), (3, 1)), ((3, 1), (1, 4)), ((5,), (5,)),
          ((1,), (1,)),
          ((2, 17, 5, 3), (17, 1, 1)), ((2, 17, 5, 3), (5, 1)), ((1, 1, 5, 3), (2, 4, 1, 1)), ((2, 1, 4), (3, 5, 2, 6, 1)),
          ((2, 3, 2, 3, 2, 3), (3, 1, 3, 1, 3)), ((2, 1, 2, 1, 2, 1), (1, 3, 1, 3, 1, 3)), ((70, 70), (70, 70)),
          ((9, 4096), (1, 4096)),
          ((9, 1), (9, 4099))]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("op", [*BINARY, *VARIADIC])
def test_broadcasting(op: str, shapes: tuple):
    net = Net(1)
    if op == "Mean":  # onnx.reference adds in place: the first operand must be as large as the result
        shapes = (np.broadcast_shapes(*shapes), shapes[1])
    check(net, net(op, first(net, op, *shapes[0]), second(net, op, *shapes[1])), trivial=np.prod([*shapes[0], *shapes[1]]) == 1)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_broadcasting_of_views(data):
    """Operands of any rank up to five, broadcast anywhere, stored in any order of dimensions."""
    op, rank = data.draw(st.sampled_from([*BINARY, *VARIADIC])), data.draw(st.integers(0, 5))
    shape = data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank))
    net = Net(data.draw(st.integers(0, 99)))

    def operand(make) -> str:
        dims = [n if data.draw(st.booleans()) else 1 for n in shape][data.draw(st.integers(0, rank)):]
        order = data.draw(st.permutations(range(len(dims))))
        x = make(net, op, *(dims[i] for i in order))
        return net("Transpose", x, perm=[order.index(i) for i in range(len(dims))]) if dims else x

    operands = [operand(first), operand(second)]
    if op == "Mean":
        operands.insert(0, net.input(*shape))
    if op in VARIADIC and data.draw(st.booleans()):
        operands.append(operand(first))
    check(net, net(op, *operands), trivial=True)


def test_more_dimensions_than_the_kernels_walk():
    net = Net(2)
    check(net, net("Add", net.input(*[2, 1] * 4), net.input(*[1, 2] * 4)),
          net("Transpose", net.input(*[2] * 8), perm=[1, 0, 3, 2, 5, 4, 7, 6]),
          native=False)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize("shape, axis", [((4,), 1), ((4, 5), 1), ((3,), 0), ((3, 4), 0), ((6,), 3), ((5, 6), None),
                                         ((3, 4, 5, 6), None),
                                         ((1,), None), ((5,), -2)], ids=str)
def test_broadcast_attribute_of_old_opsets(op: str, opset: int, shape: tuple, axis: int | None):
    net = Net(3, opset)
    x, y = net.input(3, 4, 5, 6), second(net, op, *shape)
    found = session(net.model(net(op, x, y, broadcast=int(shape != (3, 4, 5, 6)), axis=axis)))
    a, b = (net.feeds[n].astype(np.float64) for n in (x, y))
    if axis is not None:
        b = b.reshape(*shape, *[1] * (4 - axis % 4 - len(shape)))
    expected = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[op](a, b)
    np.testing.assert_allclose(found.run(None, net.feeds)[0], expected, rtol=1e-6, atol=1e-6)
    assert found.report.fallbacks == []


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("op", VARIADIC)
def test_any_number_of_operands(op: str, count: int):
    net = Net(4)
    shapes = [(2, 6, 5, 5), (1, 6, 1, 1), (5,), (2, 6, 5, 5), ()]
    image = net("Conv", net.input(2, 6, 5, 5), net.weight(6, 6, 1, 1))
    check(net, net(op, image, *(net.input(*s) for s in shapes[1:count])), net(op, *(net.input(*s) for s in shapes[:count])))


@pytest.mark.parametrize("op", ["Add", "Mul", "Max"])
def test_images_meet_rows(op: str):
    """One operand lies channels-last, the other row-major, full size or broadcast; every reader gets what it wants."""
    net = Net(5)
    image = net("Conv", net.input(2, 6, 4, 5), net.weight(18, 6, 1, 1))
    rows = net.input(2, 18, 4, 5)
    out = [net(op, image, rows), net(op, rows, image), net(op, image, net.input(2, 18, 1, 1)), net(op, net.input(18, 1, 1), image),
           net(op, image, net.input(1, 1, 4, 5)), net(op, image, net.input(4, 5)), net(op, image, net.input(2, 1, 1, 1))]
    check(net, *out, net("Conv", net("Sum", *out), net.weight(3, 18, 3, 3), pads=[1] * 4))


def test_prelu_slopes():
    """A slope per channel, per pixel, computed, and of lower rank."""
    net = Net(6)
    x = net.input(2, 6, 4, 5)
    image = net("Conv", x, net.weight(6, 6, 3, 3), pads=[1] * 4)
    outputs = [net("PRelu", source, slope) for source in (x, net("Identity", image))
               for slope in (net.normal(6, 1, 1), net.normal(1), net.normal(4, 5), net.normal(1, 6, 1, 5), net.input(6, 1, 1),
                             net.normal(5))]
    check(net, *outputs, image)


@pytest.mark.parametrize("opset", [1, 6])
def test_prelu_per_channel_of_old_opsets(opset: int):
    net = Net(7, opset)
    x, slope = net.input(2, 5, 4, 3), net.normal(5)
    found = session(net.model(net("PRelu", x, slope))).run(None, net.feeds)[0]
    a = net.feeds[x]
    np.testing.assert_allclose(found, np.where(a < 0, a * net.initializers[slope][:, None, None], a), rtol=1e-6)


def test_nan_goes_through_minimum_and_maximum():
    net = Net(8)
    x, y = net.input(4, 40), net.input(4, 40)
    net.feeds[x][1, 3] = net.feeds[y][2, 33] = np.nan
    for found in session(net.model(net("Max", x, y), net("Min", x, y), net("Max", y, x))).run(None, net.feeds):
        assert np.isnan(found[1, 3]) and np.isnan(found[2, 33]) and np.isnan(found).sum() == 2


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 4, 4), (0,)], ids=str)
def test_empty_tensors(shape: tuple):
    net = Net(9)
    x = net.input(*shape)
    check(net, net("Add", x, net.input(*shape)), net("Relu", x), net("Mul", x, net.input(1)), native=False, trivial=True)
