"""The one rounding at the end of a fold, from float64 to the type of the weights."""
from __future__ import annotations

import ml_dtypes
import numpy as np


def rounded(array: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """The array in its final type, or None if finite results could become infinite with it.

    Weights beyond the square root of the type's range could overflow in a sum whose scaled total is still finite;
    in float16, whose range is small and whose sums run in float32, only the weights themselves must be finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype) if _is_within(array, dtype) else None


def rounded_product(weight: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    """`rounded` of weight * scale (float64, which broadcasts to the weight) in the weight's type, without a large float64 array."""
    if weight.dtype not in (np.float32, np.float64):
        return rounded(np.multiply(weight, scale, dtype=np.float64), weight.dtype)
    out = np.empty(weight.shape, weight.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(weight, scale, out=out, dtype=np.float64, casting="same_kind")
        return out if _is_within(out, out.dtype) else None


def _is_within(array: np.ndarray, dtype: np.dtype) -> bool:
    info = ml_dtypes.finfo(dtype)
    limit = float(info.max) if info.bits == 16 and info.maxexp <= 16 else 2.0 ** (info.maxexp // 2)
    return array.size == 0 or bool(array.max() < limit and array.min() > -limit)
