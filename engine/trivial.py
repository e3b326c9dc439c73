"""What exporters compute of constants by the hundred, without the machinery of types and of the reference."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

OPERATORS = {"CastLike", "Concat", "Expand", "Reshape", "Shape", "Transpose"}
_FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}
_LONGEST = 1 << 16  # elements of a vector


def compute(op_type: str, attributes: Mapping[str, object], inputs: Sequence[np.ndarray]) -> np.ndarray | None:
    """What a node of ONNX makes of constants, mostly a view of one (a bias of zeros, the sizes of a Reshape, a weight in another
    shape); None for all else, which need not be wrong."""
    if op_type not in OPERATORS or not inputs:
        return None
    first, rest = inputs[0], inputs[1:]
    match op_type:
        case "Shape" if not rest:
            return np.array(first.shape[attributes.get("start"):attributes.get("end")], np.int64)
        case "CastLike" if len(rest) == 1:
            return _cast(first, rest[0].dtype)
        case "Expand" if len(rest) == 1:
            return _expand(first, rest[0])
        case "Concat" if attributes.get("axis") in (0, -1) and all(a.ndim == 1 and a.dtype == first.dtype for a in inputs):
            return np.concatenate(inputs)
        case "Reshape" if len(rest) == 1 and rest[0].ndim == 1:
            sizes = rest[0].tolist()
            known = math.prod(size for size in sizes if size != -1)
            fits = known > 0 and min(sizes, default=0) >= -1 and sizes.count(-1) <= 1 and first.size % known == 0
            return first.reshape(sizes) if fits and (-1 in sizes or known == first.size) else None
        case "Transpose" if len(perm := attributes.get("perm", range(first.ndim)[::-1])) == first.ndim:
            return first.transpose(perm)
    return None


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """CastLike between float32 and float64; None for other types."""
    if not {array.dtype, dtype} <= _FLOATS:
        return None
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _expand(array: np.ndarray, shape: np.ndarray) -> np.ndarray | None:
    """Expand of one number to a vector of moderate length, a view; None for all else."""
    if array.size != 1 or array.ndim > 1 or shape.shape != (1,) or not 0 < shape[0] <= _LONGEST:
        return None
    return np.broadcast_to(array, int(shape[0]))
