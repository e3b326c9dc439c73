"""Softmax and LogSoftmax rows against float64."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import normal, refusal, refused, rows, run

from infold import _native

F32 = np.float32


def softmax(isa: str, x: np.ndarray, log: int, **how) -> np.ndarray:
    return run("softmax", isa, {**rows(x), "length": x.shape[1], "log": log}, **{"in": x, "out": np.zeros_like(x)}, **how)["out"]


def expected_softmax(x: np.ndarray, log: int) -> np.ndarray:
    with np.errstate(all="ignore"):
        d = x.astype(np.float64)
        d = d - d.max(1, keepdims=True)
        e = np.exp(d)
        return d - np.log(e.sum(1, keepdims=True)) if log else e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("log", [0, 1])
def test_every_length(log, isa, side):
    rng = np.random.default_rng(0)
    for n in [*range(1, 5 * _native.isa_info(isa)["lanes"] + 2), 1000, 6625]:
        x = normal(rng, 3, n) * F32(4)
        got = softmax(isa, x, log, side=side)
        np.testing.assert_allclose(got, expected_softmax(x, log), rtol=2e-6, atol=1e-6 if log else 0)


@pytest.mark.parametrize("log", [0, 1])
def test_extremes(log, isa):
    x = np.zeros((7, 37), F32)
    x[0] = np.linspace(-1e4, 1e4, 37)
    x[1] = 3e38
    x[2, 3] = np.nan
    x[3, 36] = -np.inf
    x[4] = -np.inf
    x[5, 0] = np.inf
    x[6] = np.linspace(-80, -100, 37)
    np.testing.assert_allclose(softmax(isa, x, log), expected_softmax(x, log), rtol=2e-6, atol=1e-37, equal_nan=True)


@pytest.mark.parametrize("log", [0, 1])
def test_threads(log, isa):
    x = normal(np.random.default_rng(1), 300, 200)
    np.testing.assert_array_equal(softmax(isa, x, log), softmax(isa, x, log, threads=2))


@refused({
    0: [{}],
    2: [{"length": 9}, {"length": -1}, {"length": 2**62}, {"n": [1, 1, 1, 5]}, {"in_stride": [0, 0, 0, -8]}]
})
def test_check(change, status, isa):
    x = np.zeros((4, 8), F32)
    assert refusal("softmax", isa, {**rows(x), "length": 8, **change}, **{"in": x, "out": x}) == status
