"""Iteration spaces of the row-wise drivers: up to four dimensions with every operand's strides, outermost first."""
from __future__ import annotations

from .base import NotNative

MAX_DIMS = 4


def space(shape, *operands, ordered: bool = False) -> tuple[list[int], list[list[int]]]:
    """(extents, strides of each operand) of four dimensions that walk all operands alike, merged if possible.

    ordered: the dimension with the smallest stride of the first operand comes last.
    Raises NotNative if more than four are left.
    """
    dims = [[n, *strides] for n, *strides in zip(shape, *operands) if n != 1]
    if ordered:
        dims.sort(key=lambda d: -abs(d[1]))
    merged: list[list[int]] = []
    for n, *strides in dims:
        if merged and all(outer == inner * n for outer, inner in zip(merged[-1][1:], strides)):
            merged[-1] = [merged[-1][0] * n, *strides]
        else:
            merged.append([n, *strides])
    if len(merged) > MAX_DIMS:
        raise NotNative(f"more than {MAX_DIMS} dimensions that cannot be merged")
    merged = [[1] + [0] * len(operands)] * (MAX_DIMS - len(merged)) + merged
    return [d[0] for d in merged], [[d[1 + k] for d in merged] for k in range(len(operands))]


def check_rank(shape, exempt=()) -> None:
    """Raise NotNative, before anything is emitted, if the other dimensions may not fit into a space."""
    if sum(n != 1 for i, n in enumerate(shape) if i not in exempt) > MAX_DIMS:
        raise NotNative(f"more than {MAX_DIMS} dimensions")
