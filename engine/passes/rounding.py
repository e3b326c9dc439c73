"""The one rounding at the end of a fold, from float64 to the type of the weights."""
from __future__ import annotations

import ml_dtypes
import numpy as np


def rounded(array: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """The array in its final type, or None if finite results could become infinite with it.

    Weights beyond the square root of the type's range could overflow in a sum whose scaled total is still finite;
    in float16, whose range is small and whose sums run in float32, only the weights themselves must be finite.
    """
    info = ml_dtypes.finfo(dtype)
    limit = float(info.max) if info.bits == 16 and info.maxexp <= 16 else 2.0 ** (info.maxexp // 2)
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype) if array.size == 0 or np.abs(array).max() < limit else None
