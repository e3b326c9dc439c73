"""Cast between data types, of rows and of images; values that the graph converts back and forth."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check

T = onnx.TensorProto
INTEGERS = {T.INT8: np.int8, T.UINT8: np.uint8, T.INT16: np.int16, T.UINT16: np.uint16, T.INT32: np.int32, T.UINT32: np.uint32,
            T.INT64: np.int64, T.UINT64: np.uint64}  # fmt: skip


@pytest.mark.parametrize("to", INTEGERS, ids=T.DataType.Name)
def test_there_and_back(to: int, like_onnxruntime):
    net = Net(opset=13)
    x = net.feed(net.rng.uniform(0, 100, (2, 3, 7)).astype(np.float32))
    y = net("Cast", net("Cast", x, to=to), to=T.FLOAT)
    z = net("Cast", net.feed(net.rng.integers(0, 100, (5, 9)).astype(INTEGERS[to])), to=T.FLOAT)
    check(net, y, z)
    like_onnxruntime(net, y, z)


@pytest.mark.parametrize(("to", "tolerance"), [(T.FLOAT16, 2e-3), (T.BFLOAT16, 2e-2), (T.DOUBLE, 3e-6), (T.BOOL, 3e-6)])
def test_of_an_image(to: int, tolerance: float):
    net = Net(opset=13)
    image = net("Relu", net("Conv", net.input(2, 3, 5, 4), net.weight(9, 3, 1, 1)))
    y = net("Cast", net("Cast", image, to=to), to=T.FLOAT)
    check(net, y, net("Conv", y, net.weight(4, 9, 3, 3)), tolerance=tolerance)


def test_pixels_to_numbers():
    """What a camera gives: bytes, channels last."""
    net = Net(opset=13)
    pixels = net.feed(net.rng.integers(0, 256, (1, 16, 12, 3)).astype(np.uint8))
    x = net("Mul", net("Cast", net("Transpose", pixels, perm=[0, 3, 1, 2]), to=T.FLOAT), net.constant(np.float32(1 / 255)))
    check(net, net("Conv", x, net.weight(8, 3, 3, 3)))


def test_cast_like():
    net = Net(opset=15)
    x = net.feed(net.rng.integers(-9, 9, (4, 5)).astype(np.int32))
    check(net, net("CastLike", x, net.input(1)))
