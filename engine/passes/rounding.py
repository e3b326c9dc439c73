"""The one rounding at the end of a fold, from float64 to the type of the weights."""
from __future__ import annotations

from collections.abc import Callable
from math import prod

import ml_dtypes
import numpy as np

from .. import _native

BLOCK = 1 << 16  # numbers that are multiplied at a time
LARGE = 1 << 16  # bytes of an array with memory of its own


def rounded(array: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """The array in its final type, or None if finite results could become infinite with it.

    Weights beyond the square root of the type's range could overflow in a sum whose scaled total is still finite;
    in float16, whose range is small and whose sums run in float32, only the weights themselves must be finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype) if _is_within(array, dtype) else None


def rounded_product(weight: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    """`rounded` of weight * scale (float64, which broadcasts to the weight) in the weight's type."""
    out = _memory(weight.shape, weight.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(weight, scale, out=out, dtype=np.float64, casting="unsafe")  # rounds once, a few numbers at a time
    return out if _is_within(out, weight.dtype) else None


def rounded_rows(shape: tuple[int, ...], dtype: np.dtype, wide: Callable[[slice], np.ndarray]) -> np.ndarray | None:
    """`rounded` of the array whose rows `wide` gives, a few at a time: the float64 numbers never leave the cache."""
    out = _memory(shape, dtype)
    rows = max(BLOCK // max(prod(shape[1:]), 1), 1)
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, shape[0], rows):
            some = wide(slice(at, min(at + rows, shape[0])))
            if not _is_within(some, dtype):
                return None
            out[at:at + rows] = some
    return out


def _memory(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new array. What is large goes back to the system as soon as it is packed; malloc would keep it."""
    size = prod(shape)
    if size * dtype.itemsize < LARGE:
        return np.empty(shape, dtype)
    return np.frombuffer(_native.Arena(size * dtype.itemsize), dtype).reshape(shape)


def _is_within(array: np.ndarray, dtype: np.dtype) -> bool:
    info = ml_dtypes.finfo(dtype)
    limit = float(info.max) if info.bits == 16 and info.maxexp <= 16 else 2.0 ** (info.maxexp // 2)
    return array.size == 0 or bool(array.max() < limit and array.min() > -limit)
