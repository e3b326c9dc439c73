"""Typed maps: every loop against NumPy, on special values, tails, broadcast and strided operands."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from native_harness import elements, refusal, refused, run

from infold import _native
from infold.plan.tensor import TYPES

DTYPES = {name: dtype for dtype, name in TYPES.items()}
FLOATS = ("f32", "f64")
INTEGERS = [name for name in DTYPES if name[0] in "iu"]
SIZED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def truncated(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """C's division, by zero 0."""
    x, y = np.broadcast_arrays(x, y)
    safe = np.where(y == 0, 1, y)
    pairs = zip(x.ravel(), safe.ravel())
    wide = np.array([abs(int(a)) // abs(int(b)) * (1 if (a < 0) == (b < 0) else -1) for a, b in pairs], object)
    return np.where(y == 0, 0, wrapped(wide.reshape(x.shape), x.dtype)).astype(x.dtype)


def wrapped(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    bits = 8 * np.dtype(dtype).itemsize
    low = np.array([int(v) % (1 << bits) for v in values.ravel()], np.uint64)
    return low.astype(f"u{bits // 8}").view(dtype).reshape(values.shape)


def modulus(ufunc):
    return lambda x, y: np.where(y == 0, 0, ufunc(x, np.where(y == 0, 1, y))).astype(x.dtype)


def shifted(ufunc):
    return lambda x, y: np.where(y >= 8 * x.itemsize, 0, ufunc(x, np.minimum(y, 8 * x.itemsize - 1))).astype(x.dtype)


BINARY = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "MIN": np.minimum, "MAX": np.maximum, "EQUAL": np.equal, "LESS": np.less,
    "LESS_EQUAL": np.less_equal, "DIV": truncated, "MOD": modulus(np.mod), "FMOD": modulus(np.fmod), "AND": np.bitwise_and,
    "OR": np.bitwise_or, "XOR": np.bitwise_xor, "SHIFT_LEFT": shifted(np.left_shift), "SHIFT_RIGHT": shifted(np.right_shift),
}  # fmt: skip
FLOAT_BINARY = {**BINARY, "DIV": np.divide, "FMOD": np.fmod, "POW": np.power}
UNARY = {
    "ABS": np.abs, "NEG": np.negative, "SIGN": np.sign, "ISNAN": np.isnan, "ISINF": np.isinf, "ISINF_POSITIVE": np.isposinf,
    "ISINF_NEGATIVE": np.isneginf, "NOT": np.invert, "COPY": np.copy,
}  # fmt: skip
EXACT = {"SQRT": np.sqrt, "FLOOR": np.floor, "CEIL": np.ceil, "ROUND": np.rint, "RECIPROCAL": np.reciprocal}
LIBRARY = {  # two libraries may round differently
    "SIN": np.sin, "COS": np.cos, "TAN": np.tan, "ASIN": np.arcsin, "ACOS": np.arccos, "ATAN": np.arctan, "SINH": np.sinh,
    "COSH": np.cosh, "ASINH": np.arcsinh, "ACOSH": np.arccosh, "ATANH": np.arctanh, "EXP": np.exp, "LOG": np.log, "TANH": np.tanh,
    "ERF": np.vectorize(math.erf, [float]), "SIGMOID": lambda x: 1 / (1 + np.exp(-x)),
}  # fmt: skip
UNARY |= EXACT | LIBRARY


def numbers(dtype: np.dtype, count: int, seed: int = 0) -> np.ndarray:
    """Edge values first, then random ones of all sizes."""
    rng = np.random.default_rng(seed)
    if dtype == np.bool_:
        return rng.integers(0, 2, count).astype(bool)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        edges = [0, 1, info.max, info.min, info.max - 1, 2, 7]
        shifts = rng.integers(0, 8 * dtype.itemsize, count).astype(dtype)
        values = rng.integers(info.min, info.max, count, dtype, endpoint=True) >> shifts
    else:
        tiny = 6e-8 if dtype == np.float16 else 1e-40
        edges = [0, -0.0, np.nan, np.inf, -np.inf, tiny, -tiny, 0.5, 1.5, 2.5, 65504, 65519.99, 65520, 255.5, -1.5]
        values = rng.standard_normal(count) * 10.0 ** rng.integers(-9, 9, count)
    with np.errstate(all="ignore"):
        values = np.asarray(values).astype(dtype)
        values[: len(edges)] = np.array(edges[:count]).astype(dtype)
    return rng.permutation(values)


def parts(loop: str) -> tuple[str, list[np.dtype], np.dtype]:
    """Operation, input data types, output data type of a loop."""
    operation, _, kind = loop.rpartition("_")
    if operation.startswith("CAST_"):
        return "CAST", [DTYPES[operation.removeprefix("CAST_")]], DTYPES[kind]
    if operation == "WHERE":
        return operation, [np.dtype(bool), *[np.dtype(SIZED[int(kind)])] * 2], np.dtype(SIZED[int(kind)])
    dtype = np.dtype(SIZED[int(kind)]) if kind.isdigit() else DTYPES[kind]
    truth = operation.startswith(("EQUAL", "LESS", "IS"))
    return operation, [dtype] * (1 if operation in UNARY else 2), np.dtype(bool) if truth else dtype


def cast(x: np.ndarray, to: np.dtype) -> np.ndarray:
    if x.dtype.kind in "iub":
        return x.astype(np.float32).astype(to) if to.itemsize == 2 and to.kind not in "iu" else x.astype(to)
    if to == np.bool_:
        return x.astype(np.float64) != 0
    if to.kind in "iu":
        wide = x.astype(np.float64)
        inside = np.abs(np.trunc(wide)) < 2.0 ** (63 if to.itemsize == 8 or to == np.uint32 else 31)
        inside |= (to == np.uint64) & (wide > 0) & (wide < 2.0**64)
        kept = np.array([int(v) if ok else 0 for v, ok in zip(wide, inside)], object)
        least = {"i": np.iinfo(to).min if to.itemsize >= 4 else 0, "u": 1 << 63 if to == np.uint64 else 0}[to.kind]
        return np.where(inside, wrapped(kept, to), np.array(least).astype(to))
    return x.astype(np.float64).astype(np.float16) if to == np.float16 else x.astype(to)


def expected(loop: str, inputs: list[np.ndarray]) -> np.ndarray:
    operation, _, out = parts(loop)
    with np.errstate(all="ignore"):
        if operation == "CAST":
            return cast(inputs[0], out)
        if operation == "WHERE":
            return np.where(*inputs)
        table = UNARY if len(inputs) == 1 else FLOAT_BINARY if inputs[0].dtype.kind == "f" else BINARY
        return np.asarray(table[operation](*inputs)).astype(out)


def mapped(loop: str, inputs: list[np.ndarray], isa: str, **how) -> np.ndarray:
    views = np.broadcast_arrays(*inputs)
    out = np.zeros(views[0].shape, parts(loop)[2])
    params = {**elements(out, **dict(zip("abc", views))), "loop": _native.LOOPS[loop]}
    return run("map", isa, params, **dict(zip("abc", inputs)), out=out, **how)["out"]


def same(found: np.ndarray, wanted: np.ndarray, loop: str = "") -> None:
    if loop.rpartition("_")[0] in {"POW", *LIBRARY}:
        with np.errstate(over="ignore"):
            np.testing.assert_array_almost_equal_nulp(*(np.nan_to_num(x, nan=7) for x in (found, wanted)), nulp=8)
        return
    if wanted.dtype == ml_dtypes.bfloat16:
        found, wanted = found.astype(np.float32), wanted.astype(np.float32)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("loop", _native.LOOPS)
def test_loop(loop: str, side: str):
    isa = _native.isa_names()[0]  # the loops belong to no instruction set
    kinds = parts(loop)[1]
    inputs = [numbers(kind, 331, seed) for seed, kind in enumerate(kinds)]
    same(mapped(loop, inputs, isa, side=side), expected(loop, inputs), loop)
    for n in (1, 2, 17, 64):
        few = [x[:n] for x in inputs]
        same(mapped(loop, few, isa, side=side), expected(loop, few), loop)
    if len(kinds) > 1:
        for one in range(len(kinds)):  # one number for all, and a column for every row
            mixed = [x[:1] if i == one else x[:320].reshape(5, 64) for i, x in enumerate(inputs)]
            same(mapped(loop, mixed, isa, threads=2), expected(loop, mixed), loop)
            mixed = [x[:5].reshape(5, 1) if i == one else x[:320].reshape(5, 64) for i, x in enumerate(inputs)]
            same(mapped(loop, mixed, isa, side=side), expected(loop, mixed), loop)


@pytest.mark.parametrize("loop", ["CAST_f32_f16", "ADD_i64", "LESS_f32", "COPY_1", "COPY_2", "COPY_8"])
def test_strided(loop: str, isa: str, side: str):
    kinds = parts(loop)[1]
    whole = [numbers(kind, 600, seed).reshape(20, 30) for seed, kind in enumerate(kinds)]
    columns = [x.T for x in whole]
    out = np.zeros((30, 20), parts(loop)[2])
    params = {**elements(out, **dict(zip("abc", columns))), "loop": _native.LOOPS[loop]}
    same(run("map", isa, params, **dict(zip("abc", whole)), out=out, side=side, threads=2)["out"], expected(loop, columns), loop)


def test_half_precision_is_exact():
    """All 65,536 halves, there and back; doubles that a detour over float32 would round twice."""
    isa, halves = _native.isa_names()[0], np.arange(1 << 16, dtype=np.uint16)
    for name, dtype in (("f16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        x = halves.view(dtype)
        wide = mapped(f"CAST_{name}_f32", [x], isa)
        np.testing.assert_array_equal(wide, x.astype(np.float32))
        back = mapped(f"CAST_f32_{name}", [wide], isa)
        number = ~np.isnan(wide)
        np.testing.assert_array_equal(back.view(np.uint16)[number], halves[number])
    between = (np.arange(1, 60000, dtype=np.uint16).view(np.float16).astype(np.float64)[:31000] * (1 + 2.0**-12)) * (1 + 2.0**-40)
    between = np.concatenate([between, between * (1 - 2.0**-39), [6e-8, 2.9802322e-08, 2.9802323e-08, 1e-300, 1e300]])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(mapped("CAST_f64_f16", [between], isa), between.astype(np.float16))


@refused({
    0: [{}, {"c_stride": [0, 0, 0, 0, 0, 2**62]}],
    1: [{"loop": -1}, {"loop": len(_native.LOOPS)}],
    2: [{"shape": [1, 1, 1, 1, 3, 5]}, {"shape": [1, 1, 1, 1, 1, -1]}, {"a_stride": [0, 0, 0, 0, 5, -1]},
        {"out_stride": [0, 0, 0, 0, 2**62, 1]}, {"loop": _native.LOOPS["ADD_i64"]}]
})
def test_check(change: dict, status: int, isa: str):
    x = np.zeros((2, 5), np.int32)
    assert refusal("map", isa, {**elements(x, a=x, b=x), "loop": _native.LOOPS["ADD_i32"], **change}, a=x, b=x, out=x) == status
