"""Resampling by tables."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import normal, refusal, refused, run, strides

from infold import _native

F32 = np.float32
TABLES = ("row", "row_weight", "column", "column_weight")


def resize_call(x: np.ndarray, rng, size, taps) -> tuple[dict, dict]:
    """Parameters and arrays with random tables."""
    out = np.zeros((x.shape[0], *size, x.shape[3]), F32)
    params = {
        "n": out.shape[:3],
        "in_stride": strides(x)[:3],
        "out_stride": strides(out)[:3],
        "in_size": x.shape[1:3],
        "taps": taps,
        "channels": x.shape[3],
    }
    arrays = {"in": x, "out": out}
    for axis, name in enumerate(("row", "column")):
        arrays[name] = rng.integers(0, x.shape[1 + axis], (size[axis], taps[axis]))
        weight = np.abs(normal(rng, size[axis], taps[axis])) + F32(0.1)
        arrays[f"{name}_weight"] = weight / weight.sum(1, keepdims=True)
    return params, arrays


@pytest.mark.parametrize("taps", [(1, 1), (2, 2), (1, 2), (4, 4), (7, 5)])
def test_resize(taps, isa, side):
    rng = np.random.default_rng(2)
    for channels in (1, 3, _native.isa_info(isa)["lanes"] + 1, 70):
        x = normal(rng, 2, 5, 6, channels)
        params, arrays = resize_call(x, rng, (9, 7), taps)
        got = run("resize", isa, params, **arrays, side=side, constants=TABLES)["out"]
        picked = x.astype(np.float64)[:, arrays["row"]][:, :, :, arrays["column"]]  # n, y, ty, x, tx, c
        row_weight, column_weight = (arrays[k].astype(np.float64) for k in ("row_weight", "column_weight"))
        if taps == (1, 1):
            row_weight, column_weight = np.ones_like(row_weight), np.ones_like(column_weight)
        expected = np.einsum("nytxsc,yt,xs->nyxc", picked, row_weight, column_weight)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_resize_threads(isa):
    rng = np.random.default_rng(3)
    params, arrays = resize_call(normal(rng, 2, 20, 20, 64), rng, (40, 40), (2, 2))
    one, two = (run("resize", isa, params, **arrays, threads=t, constants=TABLES)["out"] for t in (1, 2))
    np.testing.assert_array_equal(one, two)


@refused({
    0: [{}],
    1: [{"taps": [0, 2]}, {"taps": [100, 100]}],
    2: [{"taps": [2, 3]}, {"n": [2, 10, 7]}, {"n": [2, 2**62, 7]}, {"in_size": [6, 6]},
        {"in_size": [4, 6]},  # a table points at row 4
        {"channels": 4}, {"in_stride": [-90, 18, 3]}]
})
def test_check_resize(change, status, isa):
    rng = np.random.default_rng(2)
    params, arrays = resize_call(np.zeros((2, 5, 6, 3), F32), rng, (9, 7), (2, 2))
    arrays["row"][3, 1] = 4
    assert refusal("resize", isa, params | change, **arrays, constants=TABLES) == status
    for bad in (-1, 6, 2**63 - 1, -(2**63)):
        broken = arrays["column"].copy()
        broken[4, 1] = bad
        assert refusal("resize", isa, params, **(arrays | {"column": broken}), constants=TABLES) == 2
    assert refusal("resize", isa, params, **arrays) == 3  # computed tables cannot be proven
