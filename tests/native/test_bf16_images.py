"""Operations on images of bf16 numbers: what they compute in float32, rounded where it is stored; activations as accurate."""
from __future__ import annotations

import numpy as np
import pytest
import test_conv
from native_harness import dims, normal, refusal, run, strides
from test_bf16 import EMULATED, INSTRUCTIONS, U16, from_bf16, to_bf16
from test_conv import CONSTANTS
from test_pool import CASES, call, pool
from test_reduce import parameters
from test_unary import FUNCTIONS
from test_winograd import problem

from infold import _native

F32 = np.float32
HALF_ULP = 2.0**-8


@pytest.fixture(params=[*INSTRUCTIONS, *EMULATED[:1]])
def isa(request: pytest.FixtureRequest) -> str:
    """The instructions and their emulation, and the emulation beside float32 kernels of wider vectors."""
    return request.param


def close(got: np.ndarray, expected: np.ndarray, size: float = 1.0) -> None:
    """Rounded once; size: of what was added up, whose float32 rounding differs where there is no fused multiply-add."""
    assert got.dtype == U16 and np.abs(expected).max() > 0.1
    np.testing.assert_allclose(from_bf16(got), expected, rtol=1.1 * HALF_ULP, atol=1e-6 * size)


def depthwise(isa, x, act="IDENTITY", mapped=False, run_of=3, stride=1, threads=1, side="end"):
    """All rows of output, of float32 or bf16 as x is; even taps where run_of is 1."""
    rng, channels = np.random.default_rng(3), x.shape[-1]
    window, runs = stride if run_of == 3 else 0, run_of if stride == 1 else 1
    w, bias = normal(rng, 3 * (run_of if run_of > 1 else 4), channels), normal(rng, channels)
    more = {"scale": normal(rng, channels), "shift": normal(rng, channels)} if mapped else {}
    return test_conv.depthwise(isa, x, w, bias, act, runs, stride, 2, more, window, threads=threads, side=side)


@pytest.mark.parametrize("act,mapped", [("RELU", False), ("SILU", False), ("HARD_SWISH", False), ("RELU", True)])
def test_depthwise(act, mapped, isa, side):
    lanes = _native.isa_info(isa)["lanes"]
    for channels in (1, lanes, 3 * lanes + 3):
        for run_of, stride in ((3, 1), (3, 2), (5, 1), (7, 1), (1, 2)):
            x = to_bf16(normal(np.random.default_rng(channels), 2, 7, 21, channels))
            expected = depthwise(isa, from_bf16(x), act, mapped, run_of, stride)
            for threads in (1, 3):
                close(depthwise(isa, x, act, mapped, run_of, stride, threads, side), expected, 10)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations(name, isa):
    """Of every bf16 number from -96 to 96, through a convolution of one tap: half a unit in the last place, and little more."""
    a, b, function, _, absolute = FUNCTIONS[name]
    x = from_bf16(np.arange(1 << 16).astype(U16))
    x = from_bf16(to_bf16(x[np.abs(x) < 96]))
    if name in ("LOG", "SQRT", "RECIPROCAL"):
        x = np.where(np.abs(x) < 1e-30, F32(1), x if name == "RECIPROCAL" else np.abs(x))
    lanes = _native.isa_info(isa)["lanes"]
    count = x.size + -x.size % lanes
    params = {"n": [1, 1, 1, count // lanes], "in_stride": [0, 0, 0, lanes], "out_stride": [0, 0, 0, lanes], "taps": 1,
              "run": 1, "group": 1, "chunk": 1, "block": lanes, "channels": lanes, "w_stride": lanes, "act": _native.ACTS[name],
              "a": a, "b": b, "half": 1}
    x = np.pad(x, (0, count - x.size), constant_values=1)
    got = run("depthwise", isa, params, **{"in": to_bf16(x)}, w=np.ones(lanes, F32), bias=np.zeros(lanes, F32), tap=np.array([0]),
              out=np.zeros(count, U16), constants=CONSTANTS)["out"]
    with np.errstate(all="ignore"):
        expected = function(x.astype(np.float64), a, b)
    known = np.abs(expected) < np.finfo(F32).max / 2
    assert known.mean() > 0.9
    np.testing.assert_allclose(from_bf16(got)[known], expected[known], rtol=1.1 * HALF_ULP, atol=1e-36 + 2 * absolute)


@pytest.mark.parametrize("average", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_pool(case, average, isa, side):
    for channels in (3, 16, 37):
        x = to_bf16(normal(np.random.default_rng(channels), 2, *case[0], channels))
        close(pool(isa, x, *case[1:], average, side=side), pool(isa, from_bf16(x), *case[1:], average))


@pytest.mark.parametrize("op", ["MEAN", "SUM", "MAX", "L2", "LOG_SUM_EXP"])
def test_reduce(op, isa, side):
    for shape in ((1, 7, 7, 300), (2, 9, 5, 17), (1, 40, 1, 2)):
        x = to_bf16(normal(np.random.default_rng(5), *shape))
        params, out = parameters(from_bf16(x), (1, 2), op)
        wide, half = (run("reduce", isa, params | {"half": given is x}, **{"in": given, "out": out}, side=side)["out"]
                      for given in (from_bf16(x), x))
        assert np.abs(wide).max() > 1e-3
        np.testing.assert_allclose(half, wide, rtol=1e-3 if op == "LOG_SUM_EXP" else 1e-5, atol=1e-5)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("act", ["RELU", "SILU"])
def test_winograd(act, tile, isa, side):
    """With a residual; the last size and number of filters need several sweeps of one tile."""
    lanes = _native.isa_info(isa)["lanes"]
    for size, channels, columns in (((4, 4), 5, 3), ((5, 7), lanes + 1, 2 * lanes + 1), ((5, 6), 3, 300)):
        params, arrays, _ = problem(isa, tile, (2, *size, channels), columns, act=act, residual=True)
        half = {name: to_bf16(arrays[name]) for name in ("in", "out", "res")}
        wide = {name: from_bf16(array) for name, array in half.items()}

        def result(given, params=params, arrays=arrays, **flags):
            return run("winograd", isa, params | flags, **{**arrays, **given}, side=side, constants=("w", "bias"))["out"]

        expected = result(wide)
        np.testing.assert_allclose(result({**wide, "in": half["in"]}, in_half=1), expected, rtol=1e-5, atol=1e-4)
        close(result({**half, "in": wide["in"]}, out_half=1), expected, 10)
        close(result(half, in_half=1, out_half=1), expected, 100)
        for flags in ({"in_half": 2}, {"out_half": -1}):
            assert refusal("winograd", isa, params | flags, **arrays, constants=("w", "bias")) == 1
        for name in ("in", "out", "res"):  # half as many bytes as float32 would need
            assert refusal("winograd", isa, params, **{**arrays, name: half[name]}, constants=("w", "bias")) == 2


def test_rounding(isa, side):
    """Rows in order, rows of an image with a border, planes that are turned round into pixels; with an activation."""
    x = normal(np.random.default_rng(7), 3, 5, 700)
    steps = strides(x)
    for shape, inside, outside in ((x.shape, steps, steps), ((5, 700, 3), (steps[1], 1, steps[0]), (2111, 3, 1)),
                                   ((5, 350, 3), (steps[1], 1, steps[0]), (2111, 5, 1)),
                                   ((3, 700, 5), (steps[0], 1, steps[1]), (3500, 5, 1))):
        for act in ("IDENTITY", "RELU", "SILU"):
            out = np.zeros(5 * 2111, U16)
            params = {"shape": dims(shape, 6, 1), "a_stride": dims(inside, 6, 0), "out_stride": dims(outside, 6, 0),
                      "op": _native.ACTS[act], "a": 1.0, "half": 1}
            got = run("unary", isa, params, **{"in": x}, out=out, side=side, threads=2)["out"]
            given = np.lib.stride_tricks.as_strided(x, shape, [4 * s for s in inside])
            taken = np.lib.stride_tricks.as_strided(got, shape, [2 * s for s in outside])
            close(np.ascontiguousarray(taken), FUNCTIONS[act][2](given.astype(np.float64), 1.0, 0.0))
    tall = {"shape": dims((4, 1025), 6, 1), "a_stride": dims((1, 4), 6, 0)}
    for change in ({"half": 2}, {"out_stride": dims((7, 2), 6, 0)}, tall):
        assert refusal("unary", isa, params | change, **{"in": x}, out=out) == 1


def test_what_is_refused(isa):
    x = to_bf16(normal(np.random.default_rng(1), 1, *CASES[0][0], 8))
    params, arrays = call(x, *CASES[0][1:])
    for half, status in ((2, 1), (-1, 1), (0, 2), (1, 0)):
        assert refusal("pool", isa, params | {"half": half}, **arrays) == status
    params, out = parameters(from_bf16(x), (1, 2, 3), "SUM")
    for flags, status in (({"half": 2}, 1), ({"half": 1}, 0), ({"half": 0}, 2), ({"half": 1, "in_kept": [0] * 4}, 1)):
        assert refusal("reduce", isa, params | flags, **{"in": x, "out": out}) == status
    lanes = _native.isa_info(isa)["lanes"]
    base = {"n": [1, 1, 1, 4], "in_stride": [0, 0, 0, 20], "out_stride": [0, 0, 0, 20], "taps": 2, "channels": 20, "w_stride": 32,
            "run": 1, "group": 1, "chunk": 1, "block": 16, "half": 1}
    arrays = {"in": np.zeros((5, 20), U16), "w": np.zeros((2, 32), F32), "bias": np.zeros(32, F32), "tap": np.array([0, 20]),
              "out": np.zeros((4, 20), U16)}
    for flags, status in (({}, 0), ({"half": 0}, 2), ({"half": 2}, 1), ({"half": -1}, 1), ({"block": 256 + lanes}, 1),
                          ({"in_stride": [0, 0, 0, 21]}, 2)):
        assert refusal("depthwise", isa, base | flags, **arrays, constants=CONSTANTS) == status


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
def test_fill(dtype, isa, side):
    for step in (1, 2):
        out = np.zeros((3, 2 * 37), dtype)
        value = np.asarray(3.0).astype(dtype)
        params = {"shape": dims([3, 37], 6, 1), "out_stride": dims([74, step], 6, 0), "item": value.itemsize,
                  "bits": int.from_bytes(value.tobytes(), "little")}
        got = run("fill", isa, params, out=out, side=side)["out"]
        expected = out.copy()
        expected[:, :37 * step:step] = 3
        np.testing.assert_array_equal(got, expected)
    assert refusal("fill", isa, params | {"item": 3}, out=out) == 1
