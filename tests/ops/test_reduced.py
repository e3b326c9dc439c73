"""Reductions of integers and float64 against NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, session

SUMS = {"ReduceSum": np.sum, "ReduceProd": np.prod, "ReduceMax": np.max, "ReduceMin": np.min,
        "ReduceL1": lambda x, **how: np.abs(x).sum(**how), "ReduceSumSquare": lambda x, **how: np.square(x).sum(**how)}  # fmt: skip
FRACTIONS = {"ReduceMean": np.mean, "ReduceL2": lambda x, **how: np.sqrt(np.square(x).sum(**how))}


@pytest.mark.parametrize("opset", [13, 22])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
@pytest.mark.parametrize("kind", [*SUMS, *FRACTIONS])
def test_like_numpy(kind, dtype, opset):
    reduce = (SUMS | FRACTIONS)[kind]
    if kind in FRACTIONS and dtype != np.float64:
        pytest.skip("rounding is not defined")
    net = Net(opset=opset)
    values = net.rng.integers(-3, 4, (3, 7, 2, 5)) + (10 if kind == "ReduceProd" else 0.3 if dtype == np.float64 else 0)
    x, wanted, outputs = net.feed(values.astype(dtype)), [], []
    for axes, keepdims in (([1], 1), ([0, -1], 0), ([1, 3], 1), (None, 0)):
        by_input = axes is not None and opset >= (13 if kind == "ReduceSum" else 18)
        spelt = {} if by_input or axes is None else {"axes": axes}
        outputs.append(net(kind, x, *([net.ints(*axes)] if by_input else []), keepdims=keepdims, **spelt))
        with np.errstate(over="ignore"):
            over = None if axes is None else tuple(axes)
            wanted.append(reduce(net.feeds[x], axis=over, keepdims=bool(keepdims)).astype(dtype))
    kind_of = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    subject = session(net.model(*outputs, types=dict.fromkeys(outputs, kind_of)), threads=2)
    for found, expected in zip(subject.run(None, net.feeds), wanted, strict=True):
        assert found.shape == expected.shape and found.dtype == expected.dtype
        assert expected.any() or kind == "ReduceProd"  # which wraps to 0 if it is of all
        np.testing.assert_allclose(found, expected, rtol=1e-14 if dtype == np.float64 else 0)
    assert subject.report.fallbacks == []


def test_small_integers_and_halves():
    net = Net()
    x = net.feed(net.rng.integers(0, 255, (2, 9, 9)).astype(np.uint8))
    y = net("ReduceMax", x, net.ints(1, 2), keepdims=0)
    subject = session(net.model(y, types={y: onnx.TensorProto.UINT8}))
    np.testing.assert_array_equal(subject.run(None, net.feeds)[0], net.feeds[x].max((1, 2)))
    assert subject.report.fallbacks == []
