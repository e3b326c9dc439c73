"""Max and average pooling against float64 windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from native_harness import normal, refusal, refused, run, strides

from infold import _native

F32 = np.float32


def call(x, out_size, kernel, stride, pad, pad_end, dilation, average=0, include_pad=0) -> tuple[dict, dict]:
    """Parameters and arrays; x: n, d, h, w, c, of float32 or of bf16 numbers."""
    out = np.zeros((x.shape[0], *out_size, x.shape[-1]), x.dtype)
    params = {"n": out.shape[:4], "in_stride": strides(x)[:4], "out_stride": strides(out)[:4], "in_size": x.shape[1:4],
              "kernel": kernel, "stride": stride, "pad": pad, "pad_end": pad_end, "dilation": dilation, "channels": x.shape[-1],
              "average": average, "include_pad": include_pad, "half": x.dtype == np.uint16}
    return params, {"in": x, "out": out}


def pool(isa, x, *how, **more):
    params, arrays = call(x, *how)
    return run("pool", isa, params, **arrays, **more)["out"]


def expected_pool(x, out_size, kernel, stride, pad, pad_end, dilation, average, include_pad):
    out = np.zeros((x.shape[0], *out_size, x.shape[-1]))
    for index in np.ndindex(*out_size):
        starts = [i * s - p for i, s, p in zip(index, stride, pad)]
        points = [[s + d * k for k in range(n)] for s, d, n in zip(starts, dilation, kernel)]
        inside = [[v for v in axis if 0 <= v < size] for axis, size in zip(points, x.shape[1:4])]
        padded = [[v for v in axis if v < size + e] for axis, size, e in zip(points, x.shape[1:4], pad_end)]
        window = np.stack([x[(slice(None), *at)].astype(np.float64) for at in itertools.product(*inside)])
        divisor = np.prod([len(a) for a in (padded if include_pad else inside)])
        out[(slice(None), *index)] = window.sum(0) / divisor if average else window.max(0)
    return out


CASES = [
    # in_size, out_size, kernel, stride, pad, pad_end, dilation
    ((1, 7, 9), (1, 4, 5), (1, 3, 3), (1, 2, 2), (0, 1, 1), (0, 1, 1), (1, 1, 1)),
    ((1, 8, 8), (1, 4, 4), (1, 2, 2), (1, 2, 2), (0, 0, 0), (0, 0, 0), (1, 1, 1)),
    ((1, 7, 7), (1, 4, 4), (1, 2, 2), (1, 2, 2), (0, 0, 0), (0, 0, 0), (1, 1, 1)),  # ceil_mode: windows hang over the edge
    ((3, 5, 4), (2, 3, 3), (2, 2, 3), (1, 2, 1), (0, 1, 1), (0, 1, 0), (1, 1, 1)),
    ((1, 9, 9), (1, 5, 5), (1, 3, 3), (1, 1, 1), (0, 0, 0), (0, 0, 0), (1, 2, 2)),
    ((1, 6, 6), (1, 6, 6), (1, 3, 3), (1, 1, 1), (0, 2, 2), (0, 2, 2), (1, 2, 2)),
    ((1, 5, 25), (1, 2, 13), (1, 3, 3), (1, 2, 2), (0, 0, 1), (0, 0, 1), (1, 1, 1)),  # a row of whole windows
    ((1, 1, 11), (1, 1, 6), (1, 1, 5), (1, 1, 2), (0, 0, 2), (0, 0, 2), (1, 1, 1)),
]


@pytest.mark.parametrize("average,include_pad", [(0, 0), (1, 0), (1, 1)])
@pytest.mark.parametrize("case", CASES)
def test_pool(case, average, include_pad, isa, side):
    size, *rest = case
    rng = np.random.default_rng(0)
    for channels in (1, 3, _native.isa_info(isa)["lanes"], 37, 70):
        x = normal(rng, 2, *size, channels)
        got = pool(isa, x, *rest, average, include_pad, side=side)
        np.testing.assert_allclose(got, expected_pool(x, *rest, average, include_pad), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("average", [0, 1])
def test_threads_and_nan(average, isa):
    x = normal(np.random.default_rng(1), 2, 1, 60, 60, 40)
    x[0, 0, 13, 17, 5] = np.nan
    rest = ((1, 30, 30), (1, 3, 3), (1, 2, 2), (0, 1, 1), (0, 1, 1), (1, 1, 1))
    one, two = (pool(isa, x, *rest, average, 0, threads=t) for t in (1, 2))
    np.testing.assert_array_equal(one, two)
    expected = np.isnan(expected_pool(x, *rest, average, 0))
    np.testing.assert_array_equal(np.isnan(one), expected)
    assert 0 < expected.sum() <= 4


@refused({
    0: [{}],
    1: [{"kernel": [1, 0, 3]}, {"kernel": [100, 100, 100]}, {"stride": [1, -1, 2]}, {"pad": [0, -1, 1]},
        {"dilation": [1, 2**62, 1]}, {"stride": [1, 2**62, 1]}, {"pad": [0, 2**63 - 1, 1]}, {"pad_end": [0, 2**63 - 1, 1]},
        {"channels": -3}],
    2: [{"n": [2, 1, 4, 6]}, {"in_size": [1, 8, 9]}, {"in_stride": [189, 0, 28, 3]}, {"channels": 2**62}]
})
def test_check(change, status, isa):
    params, arrays = call(np.zeros((2, *CASES[0][0], 3), F32), *CASES[0][1:])
    assert refusal("pool", isa, params | change, **arrays) == status
