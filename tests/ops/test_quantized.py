"""Quantised operators: to the last bit what 32-bit integers give."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check, session


def integers(net: Net, dtype, *shape: int) -> np.ndarray:
    return net.rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16])
@pytest.mark.parametrize("channels", [False, True])
def test_quantized_and_back(dtype, channels, like_onnxruntime):
    net = Net(opset=21)
    x = net.input(2, 3, 5, 4)
    scale = net.constant(np.array([0.03, 0.01, 0.02], np.float32)[:3] if channels else np.float32(0.02))
    zero = net.constant(np.array([3, 100, 7] if channels else 5).astype(dtype))
    q = net("QuantizeLinear", x, scale, zero, axis=1)
    check(net, y := net("DequantizeLinear", q, scale, zero, axis=1))
    like_onnxruntime(net, y)


@pytest.mark.parametrize(("axis", "block"), [(0, 2), (1, 3), (1, 4), (-1, 5)])
def test_scales_by_block(axis, block, like_onnxruntime):
    net = Net(opset=21)
    shape, blocks = (4, 7, 10), [4, 7, 10]
    blocks[axis] = -(-shape[axis] // block)
    scale = net.constant(net.rng.uniform(0.01, 0.05, blocks).astype(np.float32))
    zero = net.constant(integers(net, np.uint8, *blocks) // 4 + 90)
    q = net("QuantizeLinear", net.input(*shape), scale, zero, axis=axis, block_size=block)
    check(net, y := net("DequantizeLinear", q, scale, zero, axis=axis, block_size=block))
    like_onnxruntime(net, y)


@pytest.mark.parametrize("precision", ["medium", "highest"])
@pytest.mark.parametrize(("terms", "constant"), [(40, True), (300, True), (300, False), (5000, False), (70000, True)])
def test_matmul_of_integers(terms, constant, precision):
    net = Net(opset=13)
    a, w = integers(net, np.uint8, 3, terms), integers(net, np.int8, terms, 4)
    a[:, ::2], w[:, 0], zero = 255, -128, np.uint8(7)  # a column as large as it can be
    y = net("MatMulInteger", net.feed(a), net.constant(w) if constant else net.feed(w), net.constant(zero))
    subject = session(net.model(y, types={y: onnx.TensorProto.INT32}), precision=precision)
    np.testing.assert_array_equal(subject.run(None, net.feeds)[0], (a.astype(np.int32) - 7) @ w.astype(np.int32))
    assert not subject.report.fallbacks or terms == 70000  # beyond what eight sums can hold


def test_matmul_with_zeros_by_row_and_column():
    net = Net(opset=13)
    a, b = integers(net, np.uint8, 5, 6), integers(net, np.uint8, 6, 4)
    rows, columns = integers(net, np.uint8, 5), integers(net, np.uint8, 4)
    y = net("MatMulInteger", *map(net.feed, (a, b, rows, columns)))
    subject = session(net.model(y, types={y: onnx.TensorProto.INT32}))
    expected = (a.astype(np.int32) - rows[:, None]) @ (b.astype(np.int32) - columns)
    np.testing.assert_array_equal(subject.run(None, net.feeds)[0], expected)
    assert not subject.report.fallbacks


@pytest.mark.parametrize("precision", ["medium", "high", "highest"])
@pytest.mark.parametrize(("channels", "group"), [(3, 1), (6, 6), (160, 1), (500, 1)])
def test_convolution_of_integers(channels, group, precision, like_onnxruntime):
    """Windows that Winograd's way, which rounds, would take otherwise."""
    net = Net(opset=13)
    x, w = integers(net, np.uint8, 1, channels, 9, 8), integers(net, np.uint8, 6, channels // group, 3, 3)
    y = net("ConvInteger", net.feed(x), net.constant(w), net.constant(np.uint8(200)), net.constant(np.uint8(3)), group=group,
            pads=[1, 1, 1, 1])  # fmt: skip
    types = {y: onnx.TensorProto.INT32}
    subject = session(net.model(y, types=types), precision=precision)
    assert not subject.report.fallbacks
    padded = np.pad(x.astype(np.int64) - 200, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    grouped = windows.reshape(1, group, channels // group, 9, 8, 3, 3)
    filters = (w.astype(np.int64) - 3).reshape(group, 6 // group, channels // group, 3, 3)
    expected = np.einsum("ngchwij,gmcij->ngmhw", grouped, filters).reshape(1, 6, 9, 8)
    np.testing.assert_array_equal(subject.run(None, net.feeds)[0], expected)
    if precision == "highest":
        like_onnxruntime(net, y, types=types)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("by_filter", [False, True])
def test_quantized_convolution(bias, by_filter, like_onnxruntime):
    net = Net(opset=13)
    w_scale = net.rng.uniform(0.001, 0.003, 7).astype(np.float32) if by_filter else np.float32(0.002)
    w_zero = np.zeros(7, np.int8) if by_filter else np.int8(0)
    arrays = (np.float32(0.02), np.uint8(120), integers(net, np.int8, 7, 4, 3, 3), w_scale, w_zero, np.float32(0.05), np.uint8(90))
    more = [net.constant(net.rng.integers(-9000, 9000, 7, dtype=np.int32))] if bias else []
    y = net("QLinearConv", net.feed(integers(net, np.uint8, 2, 4, 10, 9)), *map(net.constant, arrays), *more, strides=[2, 1])
    types = {y: onnx.TensorProto.UINT8}
    assert not session(net.model(y, types=types)).report.fallbacks
    like_onnxruntime(net, y, types=types)


def test_quantized_matmul(like_onnxruntime):
    net = Net(opset=13)
    arrays = (np.float32(0.02), np.uint8(120), integers(net, np.uint8, 50, 6), np.float32(0.01), np.uint8(115), np.float32(0.5),
              np.uint8(100))  # fmt: skip
    y = net("QLinearMatMul", net.feed(integers(net, np.uint8, 2, 5, 50)), *map(net.constant, arrays))
    types = {y: onnx.TensorProto.UINT8}
    assert not session(net.model(y, types=types)).report.fallbacks
    like_onnxruntime(net, y, types=types)
