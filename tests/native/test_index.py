"""Picking and placing elements by index, against NumPy; indices out of range are faults."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import dims, prepare, refusal, refused, run, strides

from infold import _native

F32 = np.float32


def padded(values) -> list[int]:
    return [*values, *[0] * (6 - len(values))]


def params(data, index, shape, data_steps, index_steps, other_steps, axes, part_stride: int = 0, loop: str = "") -> dict:
    return {
        "shape": dims(shape, 6, 1),
        "data_stride": dims(data_steps, 6, 0),
        "index_stride": dims(index_steps, 6, 0),
        "other_stride": dims(other_steps, 6, 0),
        "parts": len(axes),
        "part_stride": part_stride,
        "size": padded([data.shape[a] for a in axes]),
        "scale": padded([strides(data)[a] for a in axes]),
        "loop": _native.LOOPS[loop or f"COPY_{data.itemsize}"],
    }


def rows_params(x: np.ndarray, index: np.ndarray, loop: str = "") -> dict:
    """Rows of the middle axis of three."""
    outer, _, row = x.shape
    space = (outer, index.size, row)
    return params(x, index, space, (strides(x)[0], 0, 1), (0, 1, 0), (index.size * row, row, 1), [1], loop=loop)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.float16])
@pytest.mark.parametrize("row", [1, 3, 64])
def test_rows(dtype, row, isa, side):
    rng = np.random.default_rng(4)
    x = rng.integers(0, 100, (3, 11, row)).astype(dtype)
    index = rng.integers(-11, 11, 300)
    out = np.zeros((3, index.size, row), dtype)
    for threads in (1, 2):
        got = run("gather", isa, rows_params(x, index), **{"in": x}, index=index, out=out, side=side, threads=threads)["out"]
        np.testing.assert_array_equal(got, np.take(x, index, 1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_elements(axis, isa, side):
    rng = np.random.default_rng(axis)
    x = rng.integers(0, 100, (5, 4, 6)).astype(F32)
    shape = tuple(9 if d == axis else n - 1 for d, n in enumerate(x.shape))
    index = rng.integers(-x.shape[axis], x.shape[axis], shape)
    steps = [0 if d == axis else s for d, s in enumerate(strides(x))]
    call = params(x, index, shape, steps, strides(index), strides(index), [axis])
    got = run("gather", isa, call, **{"in": x}, index=index, out=np.zeros(shape, F32), side=side)["out"]
    cut = x[tuple(slice(None) if d == axis else slice(n) for d, n in enumerate(shape))]
    np.testing.assert_array_equal(got, np.take_along_axis(cut, index, axis))


@pytest.mark.parametrize("loop", ["COPY_4", "ADD_f32", "MAX_f32"])
def test_several_parts(loop, isa, side):
    """Rows of three numbers at (a, b), read and written; equal places are met in order."""
    rng = np.random.default_rng(5)
    x = rng.integers(-50, 50, (4, 5, 3)).astype(F32)
    index = np.stack([rng.integers(-4, 4, 40), rng.integers(-5, 5, 40)], 1)
    rows = rng.integers(-50, 50, (40, 3)).astype(F32)
    call = params(x, index, (40, 3), (0, 1), (2, 0), (3, 1), [0, 1], 1, loop)
    expected = x.copy()
    for (a, b), row in zip(index, rows):
        expected[a, b] = {"COPY_4": row, "ADD_f32": expected[a, b] + row, "MAX_f32": np.maximum(expected[a, b], row)}[loop]
    for threads in (1, 2):
        got = run("scatter", isa, call, **{"in": rows}, index=index, out=x, side=side, threads=threads)["out"]
        np.testing.assert_array_equal(got, expected)
    if loop == "COPY_4":
        got = run("gather", isa, call, **{"in": x}, index=index, out=rows, side=side)["out"]
        np.testing.assert_array_equal(got, x[index[:, 0], index[:, 1]])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bad", [4, 2**63 - 1, -5, -(2**63)])
def test_computed_indices_out_of_range_are_a_fault(bad, threads, isa, side):
    x, rows = np.arange(1 << 16, dtype=F32).reshape(1, 4, -1), np.ones((1, 4, 1 << 14), F32)
    for index, fault in (np.array([1, 3, -4, bad]), 0), (np.array([1, 3, -4, 0]), -1):
        for op, arrays in ("gather", {"in": x, "out": rows}), ("scatter", {"in": rows, "out": x}):
            status, program, guarded, names = prepare(op, isa, rows_params(x, index), arrays | {"index": index}, side)
            assert status == 0
            assert program.run([guarded[name].array for name in names], threads) == fault
            assert all(g.intact() for g in guarded.values())
            data, other = (guarded[name].array[0] for name in (("in", "out") if op == "gather" else ("out", "in")))
            np.testing.assert_array_equal(other[:3], data[[1, 3, 0]])


@refused({
    0: [{}],
    1: [{"loop": -1}, {"loop": _native.LOOPS["WHERE_4"]}, {"loop": _native.LOOPS["CAST_f32_f64"]}, {"parts": 7}, {"parts": -1},
        {"size": [0] * 6}],
    2: [{"size": [5, 0, 0, 0, 0, 0]}, {"scale": [4, 0, 0, 0, 0, 0]}, {"shape": [1, 1, 1, 1, 6, 3]}, {"shape": [1, 1, 1, 1, 5, 4]},
        {"shape": [1, 1, 1, 2**62, 5, 3]}, {"loop": _native.LOOPS["COPY_8"]}, {"data_stride": [0, 0, 0, 0, -1, 1]},
        {"part_stride": 2**62, "parts": 2, "size": [1] * 6}]
})
def test_check(change, status, isa):
    x, index, other = np.zeros((1, 4, 3), F32), np.zeros(5, np.int64), np.zeros((1, 5, 3), F32)
    call = rows_params(x, index) | change
    assert refusal("gather", isa, call, **{"in": x}, index=index, out=other) == status
    assert refusal("scatter", isa, call, **{"in": other}, index=index, out=x) == status
    assert refusal("gather", isa, rows_params(x, index, "ADD_f32"), **{"in": x}, index=index, out=other) == 1
