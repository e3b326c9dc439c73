"""MaxPool and AveragePool of every rank, opset and padding."""
from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from session_harness import Net, check, session

SHAPES = {1: (2, 5, 17), 2: (1, 19, 13, 12), 3: (1, 3, 7, 6, 8)}


def versions(attributes: dict, average: bool) -> list[int]:
    """The opsets whose operator has these attributes."""
    if "dilations" in attributes:
        return [19, 22] if average else [10, 12, 22]
    if "count_include_pad" in attributes and not average:
        return []
    if "ceil_mode" in attributes:
        return [10, 11, 19, 22]
    if "count_include_pad" in attributes:
        return [7, 10, 11, 19, 22]
    return [1, 7, 8, 10, 11, 12, 19, 22]


CASES = {
    "plain": (2, dict(kernel_shape=[2, 2])),
    "strided": (2, dict(kernel_shape=[3, 2], strides=[2, 3])),
    "padded": (2, dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])),
    "asymmetric": (2, dict(kernel_shape=[4, 3], strides=[2, 1], pads=[0, 2, 3, 1])),
    "ceil": (2, dict(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)),
    "ceil-padded": (2, dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)),
    "ceil-far": (2, dict(kernel_shape=[2, 2], strides=[5, 4], ceil_mode=1)),
    "counted": (2, dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)),
    "counted-ceil": (2, dict(kernel_shape=[3, 3], strides=[3, 2], pads=[1, 0, 2, 1], count_include_pad=1, ceil_mode=1)),
    "dilated": (2, dict(kernel_shape=[3, 2], dilations=[2, 3], pads=[1, 1, 1, 1])),
    "dilated-ceil": (2, dict(kernel_shape=[3, 2], dilations=[2, 3], strides=[3, 2], ceil_mode=1)),
    "same-upper": (2, dict(kernel_shape=[4, 3], strides=[3, 2], auto_pad="SAME_UPPER")),
    "same-lower": (2, dict(kernel_shape=[4, 3], strides=[3, 2], auto_pad="SAME_LOWER")),
    "valid": (2, dict(kernel_shape=[4, 3], strides=[3, 2], auto_pad="VALID")),
    "whole": (2, dict(kernel_shape=[13, 12])),
    "1d": (1, dict(kernel_shape=[4], strides=[3], pads=[2, 1])),
    "3d": (3, dict(kernel_shape=[2, 3, 2], strides=[2, 1, 2], pads=[0, 1, 1, 1, 1, 0])),
    "3d-ceil": (3, dict(kernel_shape=[3, 2, 3], strides=[2, 2, 3], ceil_mode=1)),
}
RUNS = [(case, op, opset) for case, (_, attributes) in CASES.items() for op in ("MaxPool", "AveragePool")
        for opset in versions(attributes, op == "AveragePool")]


@pytest.mark.parametrize("case, op, opset", RUNS)
def test_attributes(case: str, op: str, opset: int):
    rank, attributes = CASES[case]
    net = Net(1, opset)
    x = net.input(*SHAPES[rank])
    check(net, net(op, x, **attributes), trivial=case == "whole")


@pytest.mark.parametrize("op, ceil, dilation", list(itertools.product(("MaxPool", "AveragePool"), (0, 1), (1, 2))))
def test_torch_agrees(op: str, ceil: int, dilation: int):
    """A second opinion on windows that hang over the edge."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    for size, kernel, stride, pad in itertools.product((5, 8, 11), (2, 3, 5), (1, 2, 3), (0, 1, 2)):
        if pad > kernel // 2 or size + 2 * pad < (kernel - 1) * dilation + 1 or (op == "AveragePool" and dilation > 1):
            continue
        net = Net(size)
        x = net.input(1, 4, size, size)
        y = net(op, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=ceil,
                dilations=[dilation] * 2 if op == "MaxPool" else None, count_include_pad=1 if op == "AveragePool" else None)
        given = torch.from_numpy(net.feeds[x])
        expected = functional.max_pool2d(given, kernel, stride, pad, dilation, bool(ceil)) if op == "MaxPool" else \
            functional.avg_pool2d(given, kernel, stride, pad, bool(ceil), True)
        np.testing.assert_allclose(session(net.model(y)).run(None, net.feeds)[0], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_indices_of_the_maxima():
    net = Net(2)
    y, indices = net("MaxPool", net.input(1, 3, 8, 8), kernel_shape=[2, 2], strides=[2, 2], outputs=2)
    check(net, y, indices, types={indices: 7})


def test_nan_wins_the_maximum():
    net = Net(3)
    x = net.input(1, 20, 6, 6)
    net.feeds[x][0, 7, 2, 3] = np.nan
    found = session(net.model(net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))).run(None, net.feeds)[0]
    assert np.isnan(found[0, 7, 1, 1]) and np.isnan(found).sum() == 1


def test_padding_is_never_the_maximum():
    net = Net(4)
    x = net.input(1, 5, 6, 6)
    net.feeds[x] = -np.abs(net.feeds[x]) - 1
    y = net("Conv", net("Identity", x), net.constant(np.eye(5, dtype=np.float32)[:, :, None, None]))
    check(net, net("MaxPool", y, kernel_shape=[3, 3], pads=[1] * 4), net("Conv", y, net.weight(3, 5, 3, 3), pads=[1] * 4))


def test_pooling_of_a_border_that_a_convolution_wants():
    """The image carries a zero border for the Conv; pooling must not look at it, and its own output carries one again."""
    net = Net(5)
    x = net("Conv", net.input(2, 3, 10, 10), net.weight(6, 3, 1, 1))
    a = net("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    m = net("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    c = net("Conv", x, net.weight(6, 6, 3, 3), strides=[2, 2], pads=[1] * 4)
    check(net, net("Conv", net("Concat", a, m, c, axis=1), net.weight(5, 18, 5, 5), pads=[2] * 4), a)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_small_integers(dtype, like_onnxruntime):
    net = Net(opset=12)
    x = net.feed(net.rng.integers(-99 if dtype == np.int8 else 0, 99, (2, 5, 9, 8)).astype(dtype))
    y = net("MaxPool", x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], ceil_mode=1)
    types = {y: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    check(net, y, types=types)
    like_onnxruntime(net, y, tolerance=0, types=types)
