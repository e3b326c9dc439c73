"""The unary kernels against float64, by ulp, over every part of the float32 range."""

from __future__ import annotations

import math

import numpy as np
import pytest
from native_harness import elements, normal, refusal, refused, run, ulps

from infold import _native

ACTS = _native.ACTS
TINY = np.finfo(np.float32).tiny
F32 = np.float32
_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def mish(x):
    # tanh(log(1 + e^x)) = (e^2x + 2e^x) / (e^2x + 2e^x + 2)
    e = np.exp(np.minimum(x, 30))
    return x * np.where(x > 30, 1.0, e * (e + 2) / (e * (e + 2) + 2))


def gelu_tanh(x):
    z = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x / (1 + np.exp(-2 * z))


# name: (a, b, float64 function, ulp, absolute error allowed beside the ulp)
FUNCTIONS = {
    "IDENTITY": (0, 0, lambda x, a, b: x, 0, 0),
    "RELU": (0, 0, lambda x, a, b: np.where(np.isnan(x), x, np.maximum(x, 0)), 0, 0),
    "CLIP": (-0.75, 1.5, lambda x, a, b: np.where(np.isnan(x), x, np.clip(x, a, b)), 0, 0),
    "LEAKY_RELU": (0.01, 0, lambda x, a, b: np.where(x < 0, F32(a).astype(np.float64) * x, x), 1, 0),
    "SIGMOID": (0, 0, lambda x, a, b: 1 / (1 + np.exp(-x)), 3, 0),
    "HARD_SIGMOID": (0.2, 0.5, lambda x, a, b: np.clip(F32(a) * x + b, 0, 1), 1, 2e-8),
    "HARD_SWISH": (0, 0, lambda x, a, b: x * np.clip(x / 6 + 0.5, 0, 1), 2, 3e-7),
    "SILU": (1.0, 0, lambda x, a, b: x / (1 + np.exp(-x)), 3, 3e-37),
    "GELU": (0, 0, lambda x, a, b: 0.5 * x * _erfc(-x / math.sqrt(2)), 3, 4e-8),
    "GELU_TANH": (0, 0, lambda x, a, b: gelu_tanh(x), 4, 1e-7),
    "TANH": (0, 0, lambda x, a, b: np.tanh(x), 3, 0),
    "ELU": (1.5, 0, lambda x, a, b: np.where(x < 0, a * np.expm1(x), x), 3, 0),
    "SELU": (1.6732632423543772, 1.0507009873554805, lambda x, a, b: F32(b) * np.where(x < 0, np.float64(F32(a)) * np.expm1(x), x),
             4, 0),
    "CELU": (0.75, 0, lambda x, a, b: np.where(x < 0, a * np.expm1(x / a), x), 4, 0),
    "SOFTPLUS": (0, 0, lambda x, a, b: softplus(x), 3, 0),
    "SOFTSIGN": (0, 0, lambda x, a, b: x / (1 + np.abs(x)), 2, 0),
    "MISH": (0, 0, lambda x, a, b: mish(x), 4, TINY),
    "THRESHOLDED_RELU": (0.7, 0, lambda x, a, b: np.where(x <= F32(a), 0, x), 0, 0),
    "EXP": (0, 0, lambda x, a, b: np.exp(x), 2, 0),
    "LOG": (0, 0, lambda x, a, b: np.log(x), 2, 0),
    "SQRT": (0, 0, lambda x, a, b: np.sqrt(x), 0.5, 0),
    "RECIPROCAL": (0, 0, lambda x, a, b: 1 / x, 0.5, 0),
    "ABS": (0, 0, lambda x, a, b: np.abs(x), 0, 0),
    "NEG": (0, 0, lambda x, a, b: -x, 0, 0),
    "FLOOR": (0, 0, lambda x, a, b: np.floor(x), 0, 0),
    "CEIL": (0, 0, lambda x, a, b: np.ceil(x), 0, 0),
    "ROUND": (0, 0, lambda x, a, b: np.rint(x), 0, 0),
    "ERF": (0, 0, lambda x, a, b: _erf(x), 2, 0),
    "SIGN": (0, 0, lambda x, a, b: np.sign(x), 0, 0),
    "SQUARE": (0, 0, lambda x, a, b: x * x, 0.5, 0),
    "LINEAR": (1.5, -0.25, lambda x, a, b: a * x + b, 1, 3e-8),
    "SCALED_TANH": (1.5, 0.5, lambda x, a, b: a * np.tanh(b * x), 4, TINY),
}


def samples() -> np.ndarray:
    """Small, ordinary, large, tiny, denormal and special values of both signs."""
    rng = np.random.default_rng(7)
    magnitude = np.concatenate(
        [
            np.exp(rng.uniform(np.log(1e-38), np.log(1e38), 4000)),
            rng.uniform(0, 12, 6000),
            rng.uniform(80, 110, 1000),
            rng.uniform(0, TINY, 50),
            [0.0, 1.0, 0.5, 1.5, 2.5, TINY, 1e-45, 3.4028235e38, np.inf, 8388609.0, 2147483648.0],
        ]
    )
    x = magnitude.astype(F32)
    return np.concatenate([x, -x, np.array([np.nan], F32)])


def flat(op: str, n: int, a: float, b: float) -> dict:
    return {**elements(np.empty(n, F32), a=np.empty(n, F32)), "op": ACTS[op], "a": a, "b": b}


def test_every_activation_is_covered():
    assert set(FUNCTIONS) | {"PRELU"} == set(ACTS)  # PRELU reads slopes: the convolution tests cover it


@pytest.mark.parametrize("name", FUNCTIONS)
def test_accuracy(name: str, isa: str):
    a, b, function, ulp, absolute = FUNCTIONS[name]
    x = samples()
    got = run("unary", isa, flat(name, x.size, a, b), **{"in": x, "out": np.zeros_like(x)})["out"]
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        expected = function(wide, a, b)
        error = ulps(got, expected)
        error[np.isinf(x) & np.isnan(expected)] = 0  # 0 * inf in the formula: NaN as there, or the limit
        error = np.where(np.abs(got.astype(np.float64) - expected) <= absolute, 0.0, error)
    worst = int(np.argmax(error))
    assert error[worst] <= ulp, (
        f"{name}({x[worst]!r}) = {got[worst]!r}, float64 {expected[worst]!r}: {error[worst]:.2f} ulp"
    )


@pytest.mark.parametrize("name", [n for n in FUNCTIONS])
def test_tails(name: str, isa: str, side: str):
    """Every length up to three vectors gives the values of the long run, in place too."""
    a, b = FUNCTIONS[name][:2]
    rng = np.random.default_rng(1)
    x = np.abs(normal(rng, 64)) if name in ("LOG", "SQRT") else normal(rng, 64)
    whole = run("unary", isa, flat(name, 64, a, b), **{"in": x, "out": np.zeros_like(x)})["out"]
    assert len(np.unique(whole)) > 1
    for n in range(3 * _native.isa_info(isa)["lanes"] + 2):
        got = run("unary", isa, flat(name, n, a, b), side=side, **{"in": x[:n], "out": np.zeros(n, F32)})["out"]
        np.testing.assert_array_equal(got, whole[:n])


@pytest.mark.parametrize("shape", [(2, 3, 17, 19), (4, 2, 17, 19)])
@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 0, 2), (1, 0, 3, 2), (0, 3, 1, 2), (1, 2, 3, 0)])
@pytest.mark.parametrize("name", ["IDENTITY", "SIGMOID"])
def test_transposed(name: str, axes: tuple[int, ...], shape: tuple[int, ...], isa: str, side: str):
    x = normal(np.random.default_rng(3), *shape)
    view = x.transpose(axes)
    out = np.zeros(view.shape, F32)
    params = {**elements(out, a=view), "op": ACTS[name]}
    results = [run("unary", isa, params, threads=threads, side=side, **{"in": x, "out": out})["out"] for threads in (1, 2)]
    expected = run("unary", isa, flat(name, x.size, 0, 0), **{"in": x.ravel(), "out": x.ravel()})["out"]
    np.testing.assert_array_equal(results[0], expected.reshape(x.shape).transpose(axes))
    np.testing.assert_array_equal(results[0], results[1])


def test_negative_strides(isa: str, side: str):
    x = normal(np.random.default_rng(3), 5, 37)
    arrays = {"in": x, "out": np.zeros_like(x)}
    got = run("unary", isa, elements(x, a=x[::-1, ::-1]), side=side, offsets={"in": x.size - 1}, **arrays)["out"]
    np.testing.assert_array_equal(got, x[::-1, ::-1])


@refused({
    0: [{}],
    1: [{"op": -1}, {"op": len(ACTS)}, {"op": ACTS["PRELU"]}],
    2: [{"shape": [1, 1, 1, 1, 4, 9]}, {"a_stride": [0, 0, 0, 0, 9, 1]}, {"out_stride": [0, 0, 0, 0, 8, 2]},
        {"a_stride": [0, 0, 0, 0, -8, 1]}, {"shape": [1, 1, 1, 1, -4, 8]},
        {"shape": [2**62, 1, 1, 1, 4, 8], "a_stride": [8, 0, 0, 0, 8, 1]}, {"a_stride": [0, 0, 0, 0, 2**62, 1]}]
})
def test_check(change: dict, status: int, isa: str):
    x = np.zeros((4, 8), F32)
    assert refusal("unary", isa, elements(x, a=x) | change, **{"in": x, "out": x}) == status
