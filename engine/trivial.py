"""What exporters compute of constants by the hundred, without the machinery of types and of the reference."""
from __future__ import annotations

import numpy as np

_FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}
_LONGEST = 1 << 16  # elements of a vector


def cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """CastLike between float32 and float64; None for other types."""
    if not {array.dtype, dtype} <= _FLOATS:
        return None
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def expand(array: np.ndarray, shape: np.ndarray) -> np.ndarray | None:
    """Expand of one number to a vector of moderate length, a view; None for all else."""
    if array.size != 1 or array.ndim > 1 or shape.shape != (1,) or not 0 < shape[0] <= _LONGEST:
        return None
    return np.broadcast_to(array, int(shape[0]))
