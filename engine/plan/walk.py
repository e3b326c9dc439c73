"""Iteration spaces for the elementwise drivers: order dimensions by the output's strides and merge what can be walked as one."""
from __future__ import annotations

from ..ops.base import NotNative

MAX_DIMS = 6


def collapse(shape, *operands) -> tuple[list[int], list[list[int]]]:
    """Six dimensions that walk every operand (strides in elements; the last operand is the output) the same way.

    Raises NotNative if more than six are left.
    """
    order = sorted((i for i, n in enumerate(shape) if n != 1), key=lambda i: (-abs(operands[-1][i]), i))
    dims: list[list[int]] = []  # [extent, stride of each operand]
    for i in order:
        new = [shape[i], *(s[i] for s in operands)]
        if dims and all(outer == inner * shape[i] for outer, inner in zip(dims[-1][1:], new[1:])):
            dims[-1] = [dims[-1][0] * shape[i], *new[1:]]
        else:
            dims.append(new)
    if len(dims) > MAX_DIMS:
        raise NotNative(f"more than {MAX_DIMS} dimensions that cannot be merged")
    if len(dims) == 1:  # one long run: give the threads rows to share
        dims = _split(dims[0])
    dims = [[1] + [0] * len(operands)] * (MAX_DIMS - len(dims)) + dims
    return [d[0] for d in dims], [[d[1 + k] for d in dims] for k in range(len(operands))]


def _split(dim: list[int], chunk: int = 4096) -> list[list[int]]:
    n, strides = dim[0], dim[1:]
    if n <= chunk or n % chunk:
        return [dim]
    return [[n // chunk, *(s * chunk for s in strides)], [chunk, *strides]]
