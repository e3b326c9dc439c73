"""Reductions against float64: every choice of dimensions, accuracy on long sums, special values, refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from native_harness import dims, normal, refusal, refused, run, strides

from infold import _native

F32 = np.float32
OPS = {
    "SUM": lambda x, axis: x.sum(axis),
    "MEAN": lambda x, axis: x.mean(axis),
    "MAX": lambda x, axis: x.max(axis),
    "MIN": lambda x, axis: x.min(axis),
    "PROD": lambda x, axis: x.prod(axis),
    "SUM_SQUARE": lambda x, axis: (x * x).sum(axis),
    "L1": lambda x, axis: np.abs(x).sum(axis),
    "L2": lambda x, axis: np.sqrt((x * x).sum(axis)),
    "LOG_SUM": lambda x, axis: np.log(x.sum(axis)),
    "LOG_SUM_EXP": lambda x, axis: np.log(np.exp(x - x.max()).sum(axis)) + x.max(),
}


def test_every_reduction_is_covered():
    assert set(OPS) == set(_native.REDUCTIONS)


def parameters(x: np.ndarray, axes: tuple[int, ...], op: str) -> tuple[dict, np.ndarray]:
    kept = [i for i in range(x.ndim) if i not in axes]
    out = np.full([x.shape[i] for i in kept], 9, F32)
    steps = strides(x)
    return {
        "kept": dims([x.shape[i] for i in kept], 4, 1),
        "reduced": dims([x.shape[i] for i in axes], 4, 1),
        "in_kept": dims([steps[i] for i in kept], 4, 0),
        "in_reduced": dims([steps[i] for i in axes], 4, 0),
        "out_stride": dims(strides(out), 4, 0),
        "op": _native.REDUCTIONS[op],
    }, out


def reduce(isa: str, op: str, x: np.ndarray, axes: tuple[int, ...], **how) -> np.ndarray:
    params, out = parameters(x, axes, op)
    return run("reduce", isa, params, **{"in": x, "out": out}, **how)["out"]


def sample(op: str, *shape: int) -> np.ndarray:
    x = normal(np.random.default_rng(8), *shape)
    if op == "PROD":
        return np.exp(x / F32(8))
    return np.abs(x) if op == "LOG_SUM" else x


def agree(got: np.ndarray, x: np.ndarray, op: str, axes: tuple[int, ...], rtol: float = 1e-6) -> None:
    wide = x.astype(np.float64)
    expected = OPS[op](wide, axes)
    # a sum's error is measured against the sum of magnitudes: cancellation is not the kernel's doing
    size = {"SUM": np.abs(wide).sum(axes), "MEAN": np.abs(wide).mean(axes)}.get(op, np.abs(expected) + 0.1)
    assert np.ptp(expected) > 0 or expected.size == 1
    assert (np.abs(got - expected) <= rtol * size).all()


@pytest.mark.parametrize("op", OPS)
def test_every_choice_of_axes(op, isa, side):
    x = sample(op, 3, 5, 6, 19)
    for count in range(1, 5):
        for axes in itertools.combinations(range(4), count):
            agree(reduce(isa, op, x, axes, side=side), x, op, axes)


@pytest.mark.parametrize("op", OPS)
def test_columns_and_runs_of_every_length(op, isa, side):
    lanes = _native.isa_info(isa)["lanes"]
    for n in [*range(1, 5 * lanes + 2), 256, 257, 600]:
        x = sample(op, 35, n)
        agree(reduce(isa, op, x, (0,), side=side), x, op, (0,))
        x = sample(op, 2, n)
        agree(reduce(isa, op, x, (1,), side=side), x, op, (1,))


@pytest.mark.parametrize("op", ["SUM", "MEAN", "L1", "SUM_SQUARE", "LOG_SUM_EXP"])
def test_long_sums_keep_their_accuracy(op, isa):
    x = np.abs(normal(np.random.default_rng(0), 2, 300_000, 3)) + F32(1)
    agree(reduce(isa, op, x, (1,)), x, op, (1,), rtol=2e-7)
    x = np.ascontiguousarray(x.transpose(0, 2, 1))
    agree(reduce(isa, op, x, (2,)), x, op, (2,), rtol=2e-7)


@pytest.mark.parametrize("op", OPS)
def test_threads(op, isa):
    x = sample(op, 4, 50, 50, 300) if op != "PROD" else sample(op, 4, 5, 5, 3000)
    for axes in ((1, 2), (3,), (0, 3)):
        one, two = (reduce(isa, op, x, axes, threads=t) for t in (1, 2))
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("axis", [0, 1])
def test_special_values(op, axis, isa):
    """Rows with NaN, infinities, zeros, and numbers whose exponentials overflow."""
    rows = np.tile(np.linspace(0.5, 1, 40, dtype=F32), (9, 1))
    rows[0, 17] = np.nan
    rows[1, 39] = np.inf
    rows[2, 0] = -np.inf
    rows[3, [5, 6]] = np.inf, -np.inf
    rows[4] = -np.inf
    rows[5] = 1000
    rows[6] = -1000
    rows[7] = 0
    rows[8, 33] = np.nan
    with np.errstate(all="ignore"):
        if op == "LOG_SUM_EXP":
            top = rows.max(1, keepdims=True).astype(np.float64)
            top = np.where(np.isfinite(top), top, 0)
            expected = np.log(np.exp(rows - top).sum(1)) + top[:, 0]
        else:
            expected = OPS[op](rows.astype(np.float64), 1)
        expected = expected.astype(F32)
    x = rows if axis == 1 else np.ascontiguousarray(rows.T)
    np.testing.assert_allclose(reduce(isa, op, x, (axis,)), expected, rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize(
    ("op", "value"), [("SUM", 0), ("PROD", 1), ("MAX", -np.inf), ("MIN", np.inf), ("LOG_SUM_EXP", -np.inf)]
)
def test_nothing_to_reduce(op, value, isa):
    for in_kept in ([0, 0, 0, 1], [0, 0, 0, 0]):
        params = {"kept": [1, 1, 1, 7], "reduced": [1, 1, 1, 0], "in_kept": in_kept, "in_reduced": [0, 0, 0, 1],
                  "out_stride": [0, 0, 0, 1], "op": _native.REDUCTIONS[op]}
        got = run("reduce", isa, params, **{"in": np.zeros(0, F32)}, out=np.ones(7, F32))
        assert (got["out"] == value).all()


@refused({
    0: [{}],
    1: [{"op": 10}, {"op": -1}],
    2: [{"kept": [1, 1, 1, 7]}, {"reduced": [1, 1, 1, 5]}, {"reduced": [1, 1, 1, -1]}, {"in_reduced": [0, 0, 0, -6]},
        {"in_kept": [0, 0, 0, 2]}, {"out_stride": [0, 0, 0, 2]}, {"in_reduced": [0, 0, 0, 2**62]},
        {"kept": [2**40, 2**40, 2**40, 6]}, {"reduced": [2**62, 4, 1, 4]}]
})
def test_check(change, status, isa):
    params, out = parameters(np.zeros((4, 6), F32), (0,), "SUM")
    assert refusal("reduce", isa, params | change, **{"in": np.zeros((4, 6), F32), "out": out}) == status
