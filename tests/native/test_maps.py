"""Binary, affine and fill: broadcasting by strides, tails, threads, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import elements, normal, refusal, run, ulps

from infold import _native

F32 = np.float32
BINARIES = {
    "ADD": np.add,
    "SUB": np.subtract,
    "MUL": np.multiply,
    "DIV": np.divide,
    "MIN": np.minimum,
    "MAX": np.maximum,
    "POW": np.power,
    "PRELU_SLOPE": lambda x, y: np.where(x < 0, x * y, x),
}
SPECIAL = np.array([0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 3.4e38, 1e-45, 2.0], F32)


def test_every_binary_is_covered():
    assert set(BINARIES) == set(_native.BINARIES)


def binary(isa: str, op: str, a: np.ndarray, b: np.ndarray, **how) -> np.ndarray:
    """The operation on NumPy-broadcast operands, whatever their strides."""
    va, vb = np.broadcast_arrays(a, b)
    out = np.zeros(va.shape, F32)
    return run("binary", isa, {**elements(out, a=va, b=vb), "op": _native.BINARIES[op]}, a=a, b=b, out=out, **how)["out"]


@pytest.mark.parametrize("op", BINARIES)
def test_special_values(op: str, isa: str):
    a, b = np.meshgrid(SPECIAL, SPECIAL, indexing="ij")
    a, b = np.ascontiguousarray(a).ravel(), np.ascontiguousarray(b).ravel()
    with np.errstate(all="ignore"):
        expected = BINARIES[op](a.astype(np.float64), b.astype(np.float64)).astype(F32)
    got = binary(isa, op, a, b)
    keep = np.abs(expected) >= np.finfo(F32).tiny if op == "POW" else np.ones(a.size, bool)
    keep |= ~np.isfinite(expected) | (expected == 0)
    assert ulps(got[keep], expected[keep]).max() <= 1


@pytest.mark.parametrize("op", BINARIES)
def test_rows_and_tails(op: str, isa: str, side: str):
    rng = np.random.default_rng(2)
    for n in range(1, 3 * _native.isa_info(isa)["lanes"] + 2):
        a, b = normal(rng, 3, n), normal(rng, 3, n)
        if op == "POW":
            a = np.abs(a) + F32(0.1)
        for x, y in ((a, b), (a, b[:1]), (a, b[:, :1]), (a[:, :1], b), (a[:1, :1], b), (a, b[:1, :1])):
            x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
            with np.errstate(all="ignore"):
                expected = BINARIES[op](x.astype(np.float64), y.astype(np.float64))
            assert ulps(binary(isa, op, x, y, side=side), expected).max() <= 1


@pytest.mark.parametrize("power", [2.0, 3.0, 1.5, -1.0, 0.0])
def test_power_of_a_row(power: float, isa: str, side: str):
    x = np.concatenate([SPECIAL, normal(np.random.default_rng(3), 61)])
    with np.errstate(all="ignore"):
        expected = np.power(x.astype(np.float64), power)
    assert ulps(binary(isa, "POW", x, np.array([power], F32), side=side), expected).max() <= 1


@pytest.mark.parametrize("op", ["ADD", "DIV", "POW"])
def test_high_rank_broadcast_and_threads(op: str, isa: str, side: str):
    rng = np.random.default_rng(4)
    a = np.abs(normal(rng, 3, 1, 50, 1, 70)) + F32(0.1)
    b = normal(rng, 2, 1, 5, 70)
    results = [binary(isa, op, a, b, side=side, threads=t) for t in (1, 2)]
    assert ulps(results[0], BINARIES[op](a.astype(np.float64), b)).max() <= 1
    np.testing.assert_array_equal(*results)


AFFINE = {"IDENTITY": lambda y: y, "RELU": lambda y: np.maximum(y, 0), "SILU": lambda y: y / (1 + np.exp(-y))}


def check_affine(isa: str, act: str, x: np.ndarray, scale: np.ndarray, shift: np.ndarray, **how) -> np.ndarray:
    """act(x * scale + shift) of a view x, with scale and shift that broadcast; the result, which is as float64 has it."""
    out = np.zeros(x.shape, F32)
    params = {**elements(out, a=x, b=np.broadcast_to(scale, x.shape)), "op": _native.ACTS[act], "a": 1.0}
    storage = x if x.base is None else x.base
    got = run("affine", isa, params, x=storage, scale=scale, shift=shift, out=out, **how)["out"]
    np.testing.assert_allclose(got, AFFINE[act](x * scale.astype(np.float64) + shift), rtol=1e-5, atol=1e-6)
    return got


@pytest.mark.parametrize("per", ["element", "row"])
@pytest.mark.parametrize("act", AFFINE)
def test_affine(act: str, per: str, isa: str, side: str):
    rng = np.random.default_rng(5)
    for n in [*range(1, 3 * _native.isa_info(isa)["lanes"] + 2), 5000]:
        size = (n,) if per == "element" else (7, 1)
        x, scale, shift = normal(rng, 7, n), normal(rng, *size), normal(rng, *size)
        np.testing.assert_array_equal(*(check_affine(isa, act, x, scale, shift, threads=t, side=side) for t in (1, 2)))


@pytest.mark.parametrize("act", AFFINE)
@pytest.mark.parametrize("channels", [2, 3, 16, 17, 40])
def test_affine_turned(channels: int, act: str, isa: str, side: str):
    """Channels apart in x and together in out: blocks of 64 pixels and 16 channels, with every kind of edge."""
    rng = np.random.default_rng(6)
    scale, shift = normal(rng, channels), normal(rng, channels)
    for pixels in (1, 2, 63, 64, 65, 200):
        check_affine(isa, act, normal(rng, channels, pixels).T, scale, shift, threads=1 + pixels % 2, side=side)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 4, 5, 2, 7), (4, 33000)])
def test_fill(shape: tuple[int, ...], isa: str, side: str):
    """Fills every other element of the last dimension and leaves the rest alone."""
    out = np.zeros((*shape[:-1], 2 * shape[-1] - 1), F32)
    view = out[..., ::2]
    params = {**elements(view), "item": 4, "bits": int(np.float32(2.5).view(np.int32))}
    for threads in (1, 2):
        got = run("fill", isa, params, threads=threads, side=side, out=out)["out"]
        assert (got[..., ::2] == 2.5).all() and (got[..., 1::2] == 0).all()


@pytest.mark.parametrize(("op", "change", "status"), [
    ("binary", {}, 0), ("binary", {"b_stride": [0, 0, 0, 0, 9, 1]}, 2), ("binary", {"a_stride": [0, 0, 0, 0, -1, 1]}, 2),
    ("binary", {"out_stride": [0, 0, 0, 0, 2**61, 1]}, 2), ("binary", {"op": 99}, 1),
    ("affine", {}, 0), ("affine", {"a_stride": [0, 0, 0, 0, 8, 2]}, 1), ("affine", {"b_stride": [0, 0, 0, 0, 8, 1]}, 2),
    ("affine", {"op": _native.ACTS["PRELU"]}, 1),
    ("fill", {}, 0), ("fill", {"out_stride": [0, 0, 0, 2**62, 8, 1], "shape": [1, 1, 1, 4, 4, 8]}, 2),
    ("fill", {"shape": [1, 1, 1, 1, 5, 8]}, 2),
])
def test_check(op: str, change: dict, status: int, isa: str):
    x, row = np.zeros((4, 8), F32), np.zeros(8, F32)
    params = {**elements(x), "item": 4} if op == "fill" else elements(x, a=x, b=np.broadcast_to(row, x.shape))
    operands = {"fill": {}, "binary": {"a": x, "b": row}, "affine": {"x": x, "scale": row, "shift": row}}[op]
    assert refusal(op, isa, params | change, **operands, out=x) == status
