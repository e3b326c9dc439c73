"""Pad by a constant: every opset's spelling, every rank, negative pads."""
from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_harness import Net, check


@pytest.mark.parametrize("opset", [1, 2, 11, 18, 21])
@pytest.mark.parametrize("value", [0.0, -1.5])
def test_opsets(opset: int, value: float):
    net = Net(1, opset)
    x, pads = net("Neg", net.input(2, 3, 4, 5)), [0, 1, 2, 0, 1, 0, 3, 1]
    if opset < 11:
        y = net("Pad", x, value=value, **{"paddings" if opset == 1 else "pads": pads})
    else:
        y = net("Pad", x, net.ints(*pads), net.constant(np.float32(value)))
    check(net, y)


def test_axes():
    net = Net(2, 18)
    x = net.input(2, 3, 4)
    check(net, net("Pad", x, net.ints(1, 2, 3, 0), None, net.ints(-1, 1)),
          net("Pad", x, net.ints(1, 1), net.constant(np.float32(2)), net.ints(0)))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_pads(data):
    """Pads of either sign on every side of rows and images; a convolution with padding follows some."""
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    pads = [data.draw(st.integers(-n + 1, 3)) for n in shape]
    pads += [data.draw(st.integers(-(n + min(0, a)) + 1, 3)) for n, a in zip(shape, pads)]
    net = Net(data.draw(st.integers(0, 99)))
    x = net.input(*shape)
    if len(shape) == 4 and data.draw(st.booleans()):
        x = net("Conv", x, net.weight(shape[1], shape[1], 1, 1))
    y = net("Pad", x, net.ints(*pads), *([net.constant(np.float32(0.5))] if data.draw(st.booleans()) else []))
    outputs = [y]
    if len(shape) == 4:
        channels = shape[1] + pads[1] + pads[5]
        outputs.append(net("Conv", y, net.weight(3, channels, 3, 3), pads=[1] * 4))
    check(net, *outputs, trivial=True)


def test_a_value_known_only_in_the_run():
    """The plan is cut before the Pad, and goes on when the value is known."""
    net = Net(3)
    x = net.input(1, 3, 4, 4)
    y = net("Conv", x, net.weight(3, 3, 3, 3), pads=[1] * 4)
    z = net("Pad", y, net.ints(0, 0, 1, 1, 0, 0, 1, 1), net("ReduceMax", y, keepdims=0))
    check(net, net("Conv", z, net.weight(2, 3, 3, 3)))


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_other_modes(mode: str):
    net = Net(4, 19)
    y = net("Conv", net.input(1, 3, 6, 6), net.weight(4, 3, 1, 1))
    check(net, net("Conv", net("Pad", y, net.ints(0, 0, 1, 2, 0, 0, 2, 1), mode=mode), net.weight(2, 4, 3, 3), pads=[1] * 4))
    net = Net(4, 19)
    x = net.input(3, 4, 5)
    check(net, net("Pad", x, net.ints(2, 3, 0, 1, 0, 4), mode=mode), net("Pad", x, net.ints(4, 4), None, net.ints(2), mode=mode))


@pytest.mark.parametrize(("mode", "pads"), [("reflect", [3, 0]), ("wrap", [4, 1]), ("edge", [-1, 2])])
def test_rare_forms_fall_back(mode: str, pads: list[int]):
    net = Net(4, 19)
    check(net, net("Pad", net.input(3), net.ints(*pads), mode=mode), native=False)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_other_types(mode, dtype, like_onnxruntime):
    """A value that float64 does not hold, too."""
    net = Net(3, 19)
    x = net.feed(net.rng.integers(1, 99, (1, 3, 4, 5)).astype(dtype))
    value = [net.constant(np.array((1 << 53) + 1 if dtype == np.int64 else 7, dtype))] if mode == "constant" else []
    y = net("Pad", x, net.ints(0, 1, 2, 1, 0, 0, 1, 2), *value, mode=mode)
    types = {y: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    check(net, y, types=types)
    like_onnxruntime(net, y, tolerance=0, types=types)
