"""How far a result is from its reference."""

from __future__ import annotations

import math

import numpy as np


def deviation(y: object, r: object) -> float:
    """Return max|y - r| / max|r| over the elements that are finite in both; max|y| where r is zero throughout.

    Infinity if types or shapes differ; strings are equal (0) or not (infinity); of sequences, the worst element.
    """
    if isinstance(y, list) or isinstance(r, list):
        if not (isinstance(y, list) and isinstance(r, list) and len(y) == len(r)):
            return math.inf
        return max((deviation(a, b) for a, b in zip(y, r)), default=0.0)
    if y is None or r is None:
        return 0.0 if y is r else math.inf
    y, r = np.asarray(y), np.asarray(r)
    if y.shape != r.shape:
        return math.inf
    if not (_numeric(y) and _numeric(r)):
        return 0.0 if np.array_equal(y.astype(str), r.astype(str)) else math.inf
    y, r = _wide(y), _wide(r)
    finite = np.isfinite(y) & np.isfinite(r)
    scale = np.abs(r[finite]).max(initial=0)
    return float(np.abs(y[finite] - r[finite]).max(initial=0) / (scale or 1))


def same_pattern(y: object, r: object) -> bool:
    """Are NaN, +inf and -inf at the same places, once r is rounded to y's type?"""
    if isinstance(y, list) and isinstance(r, list):
        return len(y) == len(r) and all(same_pattern(a, b) for a, b in zip(y, r))
    y, r = np.asarray(y), np.asarray(r)
    if y.shape != r.shape or not (_numeric(y) and _numeric(r)):
        return y.shape == r.shape
    with np.errstate(all="ignore"):
        y, r = _wide(y), _wide(r.astype(y.dtype))
    special = ~np.isfinite(y)
    return np.array_equal(special, ~np.isfinite(r)) and np.array_equal(y[special], r[special], equal_nan=True)


def differences(y: object, o: object) -> tuple[float | None, float | None]:
    """Return the largest difference, and the largest relative one among elements of at least 1e-3 of the largest."""
    if isinstance(y, list) or isinstance(o, list) or o is None or y is None:
        return None, None
    y, o = np.asarray(y), np.asarray(o)
    if y.shape != o.shape or not (_numeric(y) and _numeric(o)):
        return None, None
    y, o = _wide(y), _wide(o)
    finite = np.isfinite(y) & np.isfinite(o)
    difference, size = np.abs(y[finite] - o[finite]), np.abs(o[finite])
    counted = (size > 0) & (size >= 1e-3 * size.max(initial=0))
    return float(difference.max(initial=0)), float((difference[counted] / size[counted]).max(initial=0))


def trivial(r: object) -> bool:
    """Is the reference constant, so that a wrong result could agree with it by accident?"""
    if isinstance(r, list):
        return all(trivial(item) for item in r)
    r = np.asarray(r)
    return r.size > 1 and bool((r == r.flat[0]).all())


def _numeric(x: np.ndarray) -> bool:
    return x.dtype.kind in "biufc" or x.dtype.name == "bfloat16"


def _wide(x: np.ndarray) -> np.ndarray:
    return x if x.dtype.kind == "c" else x.astype(np.float64)
