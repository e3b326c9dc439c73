"""The roof over a piece of work: how fast this machine could do so many operations on so many bytes."""

from __future__ import annotations

import time

import numpy as np


def bandwidth(size: int) -> float:
    """Bytes per second, read and written, of a copy whose two arrays take `size` bytes together: the best of several."""
    source = np.ones(max(size // 8, 64), np.float32)
    target, best = np.zeros_like(source), 1.0
    copies = max(1, (1 << 22) // source.nbytes)
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(copies):
            np.copyto(target, source)
        best = min(best, (time.perf_counter() - began) / copies)
    return 2 * source.nbytes / best


def roof(peak: float, intensity: float, speed: float) -> float:
    """Operations per second at most (Williams, Waterman and Patterson, "Roofline", 2009).

    Args:
        peak: operations per second on registers alone.
        intensity: operations per byte that moves.
        speed: bytes per second.
    """
    return min(peak, intensity * speed)
