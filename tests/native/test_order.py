"""The first k of every row, against a stable sort in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import dims, refusal, refused, run, strides

TYPES = {np.float32: 0, np.float64: 1, np.int64: 2}


def call(x: np.ndarray, k: int, largest: bool = True) -> dict:
    steps = strides(x)
    return {"n": dims(x.shape[:-1], 4, 1), "in_stride": dims(steps[:-1], 4, 0), "length": x.shape[-1], "step": steps[-1], "k": k,
            "largest": largest, "type": TYPES[x.dtype.type]}  # fmt: skip


def expected(x: np.ndarray, k: int, largest: bool) -> np.ndarray:
    """NaN counts as the greatest; of equal elements the first comes first."""
    greatest = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    value = np.where(greatest, 0, x)
    sign = -1 if largest else 1
    return np.lexsort((np.broadcast_to(np.arange(x.shape[-1]), x.shape), value * sign, greatest * sign), axis=-1)[..., :k]


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("length", [1, 2, 7, 300])
def test_order(dtype, length, largest, isa, side):
    rng = np.random.default_rng(length)
    x = rng.integers(-length // 2, length, (3, 5, length)).astype(dtype)  # many are equal
    if dtype != np.int64:
        x[0, :2, :: 3 + length // 20] = np.nan
        x[1, 0, -1], x[1, 1, 0] = np.inf, -np.inf
    for k in sorted({1, 2, length // 2, length} - {0}):
        if k > length:
            continue
        found = [run("order", isa, call(x, k, largest), **{"in": x}, out=np.zeros((3, 5, k), np.int64), side=side, threads=t)["out"]
                 for t in (1, 2)]  # fmt: skip
        for got in found:
            np.testing.assert_array_equal(got, expected(x, k, largest))


def test_strided(isa, side):
    x = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    params = call(x, 3) | {"n": [1, 1, 1, 40], "in_stride": [0, 0, 0, 1], "length": 6, "step": 40}
    got = run("order", isa, params, **{"in": x}, out=np.zeros((40, 3), np.int64), side=side)["out"]
    np.testing.assert_array_equal(got, expected(np.ascontiguousarray(x.T), 3, True))


@refused({
    0: [{}],
    1: [{"k": 0}, {"k": 8}, {"type": 3}, {"type": -1}],
    2: [{"type": 1}, {"length": 8}, {"n": [1, 1, 1, 6]}, {"n": [-1, 1, 1, 5]}, {"n": [2**62, 1, 1, 5]}, {"step": -1}, {"k": 7},
        {"in_stride": [0, 0, 0, 2**62]}]
})
def test_check(change, status, isa):
    x = np.zeros((5, 7), np.float32)
    assert refusal("order", isa, call(x, 3) | change, **{"in": x}, out=np.zeros((5, 3), np.int64)) == status
