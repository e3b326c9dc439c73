"""Offsets in the arena from the lifetimes of buffers."""
from __future__ import annotations

from bisect import insort

from .tensor import Buffer

ALIGN = 64


def round_up(n: int, to: int = ALIGN) -> int:
    return -(-n // to) * to


def plan_arena(buffers: list[Buffer]) -> int:
    """Give every buffer an offset such that buffers alive together never overlap; returns the arena's size in bytes.

    Greedy by size, best fit (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020): the
    largest buffers are placed first, each in the smallest gap that holds it among those alive at the same time.
    """
    placed: list[Buffer] = []
    total = 0
    live = [b for b in buffers if b.first is not None and b.nbytes > 0]
    for buffer in sorted(live, key=lambda b: -b.nbytes):
        size = round_up(buffer.nbytes)
        taken: list[tuple[int, int]] = []
        for other in placed:
            if other.first <= buffer.last and buffer.first <= other.last:
                insort(taken, (other.offset, other.offset + round_up(other.nbytes)))
        best, gap, at = None, None, 0
        for begin, end in taken:
            room = begin - at
            if room >= size and (gap is None or room < gap):
                best, gap = at, room
            at = max(at, end)
        buffer.offset = at if best is None else best
        total = max(total, buffer.offset + size)
        placed.append(buffer)
    return total
