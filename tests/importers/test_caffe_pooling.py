"""Caffe's Pooling against its loops written out, and OpenCV: rounding up, clipped windows, divisors with padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
from caffe_harness import Net, check, ops
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infold.errors import InvalidModelError, UnsupportedError


def caffe_pool(x, kernel, stride, pad, average, floor=False):
    """PoolingLayer::Forward_cpu, for square windows."""
    size = [(math.floor if floor else math.ceil)((n + 2 * pad - kernel) / stride) + 1 for n in x.shape[2:]]
    if pad:
        size = [count - 1 if (count - 1) * stride >= n + pad else count for count, n in zip(size, x.shape[2:])]
    y = np.zeros((*x.shape[:2], *size))
    for i in range(size[0]):
        for j in range(size[1]):
            starts = [i * stride - pad, j * stride - pad]
            ends = [min(start + kernel, n + pad) for start, n in zip(starts, x.shape[2:])]
            area = (ends[0] - starts[0]) * (ends[1] - starts[1])
            part = x[:, :, max(starts[0], 0) : min(ends[0], x.shape[2]), max(starts[1], 0) : min(ends[1], x.shape[3])]
            y[:, :, i, j] = part.sum((2, 3)) / area if average else part.max((2, 3))
    return y


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.booleans())
def test_against_caffes_loops(kernel, stride, pad, height, width, average, floor):
    assume(pad < kernel and stride <= kernel)
    assume(not floor or min(height, width) + 2 * pad >= kernel)
    assume(all(-(-(n + 2 * pad - kernel) // stride) >= 0 for n in (height, width)))
    params = (
        f"pooling_param {{ pool: {'AVE' if average else 'MAX'} kernel_size: {kernel} stride: {stride} pad: {pad} "
        f"{'round_mode: FLOOR' if floor else ''} }}"
    )
    net = Net(x=(2, 3, height, width)).layer("Pooling", params=params)
    feeds = net.feeds()
    check(net, feeds, [caffe_pool(feeds["x"].astype(np.float64), kernel, stride, pad, average, floor)], opencv=False)


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize(
    "params",
    [
        "kernel_size: 3 stride: 2",
        "kernel_size: 3 stride: 2 pad: 1",
        "kernel_size: 2 stride: 2 pad: 1",
        "kernel_h: 2 kernel_w: 3 stride: 3 pad: 1",
        "kernel_size: 3 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0",
        "global_pooling: true",
        "kernel_size: 3 stride: 2 ceil_mode: false",
    ],
)
def test_against_opencv(pool, params):
    for shape in ((2, 3, 8, 11), (1, 5, 7, 6)):
        check(Net(x=shape).layer("Pooling", params=f"pooling_param {{ pool: {pool} {params} }}"))


def test_padding_is_a_node_of_its_own_only_where_an_average_needs_it():
    pool = lambda params: ops(Net(x=(1, 2, 8, 8)).layer("Pooling", params=f"pooling_param {{ {params} }}").load())  # noqa: E731
    assert pool("pool: AVE kernel_size: 3 stride: 1 pad: 1") == ["AveragePool"]
    assert pool("pool: AVE kernel_size: 3 stride: 2") == ["AveragePool"]
    assert pool("pool: AVE kernel_size: 3 stride: 2 pad: 1") == ["Pad", "AveragePool"]
    assert pool("kernel_size: 3 stride: 2 pad: 1") == ["MaxPool"]


def test_global_pooling_keeps_working_after_a_change_of_size():
    model = Net(x=(1, 2, 8, 8)).layer("Pooling", params="pooling_param { pool: AVE global_pooling: true }").load()
    assert ops(model) == ["GlobalAveragePool"]


@pytest.mark.parametrize(
    "params, kind, message",
    [
        ("kernel_size: 0", InvalidModelError, r"kernel_size is \[0, 0\]"),
        ("", InvalidModelError, "kernel_size"),
        ("kernel_size: 3 stride: 0", InvalidModelError, "stride"),
        ("kernel_size: 3 pad: 3", InvalidModelError, "smaller than the kernel"),
        ("kernel_size: 4294967295", InvalidModelError, "2147483647"),
        ("kernel_size: 99", InvalidModelError, "larger than the image"),
        ("kernel_size: 3 kernel_h: 3", InvalidModelError, "exclude"),
        ("global_pooling: true pad: 1", InvalidModelError, "global"),
        ("pool: STOCHASTIC kernel_size: 2", UnsupportedError, "stochastic"),
    ],
)
def test_refused(params, kind, message):
    with pytest.raises(kind, match=f"'y_pooling' \\(Pooling\\).*{message}"):
        Net(x=(1, 2, 8, 8)).layer("Pooling", params=f"pooling_param {{ {params} }}").load()
