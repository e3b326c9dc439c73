"""Dimensions named after the part of a tensor's axes that they run over, and how operators move, cut and join them."""
from __future__ import annotations

from math import prod

import onnx_ir as ir

from .expression import Atom

Dim = tuple[Atom, ...]  # nothing: size 1
Size = int | str | None  # a number, the name of an open dimension, unknown


def regroup(atoms: list[Atom], sizes: list[Size]) -> tuple[Dim, ...] | None:
    """The atoms, in order, dealt out to dimensions of these sizes; at most one size may be unknown."""
    atoms, front, back = list(atoms), [], []
    while sizes and (dim := _take(atoms, sizes[0])) is not None:
        front.append(dim)
        sizes = sizes[1:]
    while len(sizes) > 1 and (dim := _take(atoms, sizes[-1], last=True)) is not None:
        back.insert(0, dim)
        sizes = sizes[:-1]
    match sizes:
        case []:
            return None if atoms else (*front, *back)
        case [rest] if not isinstance(rest, int):
            return (*front, _merged(atoms), *back)
        case _:
            return None


def broadcast(first: tuple[Dim, ...], second: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    rank = max(len(first), len(second))
    first, second = (((),) * (rank - len(dims)) + dims for dims in (first, second))
    if any(a and b and a != b for a, b in zip(first, second)):
        return None
    return tuple(a or b for a, b in zip(first, second))


def _take(atoms: list[Atom], size: Size, last: bool = False) -> Dim | None:
    """Remove atoms that make a dimension of this size from the list; None, and nothing removed, if there are none."""
    if size == 1:
        return ()
    end = -1 if last else 0
    if not isinstance(size, int):
        if size is None or not atoms or atoms[end][2] != size:
            return None
        return (atoms.pop(end),)
    left, taken = list(atoms), []
    while size != 1:
        if not left or not isinstance(left[end][2], int):
            return None
        axis, divisor, extent = left.pop(end)
        if size % extent == 0:
            taken.append((axis, divisor, extent))
            size //= extent
        elif extent % size == 0 and not last:
            taken.append((axis, divisor * (extent // size), size))
            left.insert(0, (axis, divisor, extent // size))
            size = 1
        elif extent % size == 0:
            taken.append((axis, divisor, size))
            left.append((axis, divisor * size, extent // size))
            size = 1
        else:
            return None
    atoms[:] = left
    return _merged(taken[::-1] if last else taken)


def _merged(atoms: list[Atom]) -> Dim:
    """Neighbouring parts of one axis as one."""
    merged: list[Atom] = []
    for axis, divisor, extent in atoms:
        if merged and merged[-1][0] == axis and merged[-1][1] == divisor * extent:
            merged[-1] = (axis, divisor, extent * merged[-1][2])
        else:
            merged.append((axis, divisor, extent))
    return tuple(merged)


def size_of(dim: Dim) -> Size:
    if not dim:
        return 1
    if all(isinstance(extent, int) for *_, extent in dim):
        return prod(extent for *_, extent in dim)
    return dim[0][2] if len(dim) == 1 else None


def shape_of(value: ir.Value) -> list[Size]:
    return [] if value.shape is None else [size if isinstance(size, int) else size.value for size in value.shape]
