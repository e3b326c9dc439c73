"""What the plans of a session share."""
from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

import numpy as np
import onnx_ir as ir

from .. import _native
from .options import PlanOptions
from .tensor import F32


class Store:
    """Arrays that all plans of a session share, by what they were made from: packed weights, tables, plain constants.

    They are carved from large zeroed blocks (see `_native.Arena`), each array from a cache line on.
    """

    def __init__(self, block: int = 1 << 26, control: Callable[[ir.Node, ir.Model, PlanOptions], object] | None = None) -> None:
        """block: bytes; its untouched pages cost nothing. control: makes the ControlRunner of a Loop or Scan."""
        self.arrays: dict = {}
        self.arenas: list[_native.Arena] = []  # those of runs, idle
        self.block, self.control = block, control
        self.controls = WeakValueDictionary()  # node -> ControlRunner, with what its bodies have packed
        self._block = np.zeros(0, np.uint8)
        self._used = 0

    def get(self, key, make) -> np.ndarray:
        if key not in self.arrays:
            self.arrays[key] = make()
        return self.arrays[key]

    def zeros(self, count: int, dtype=F32) -> np.ndarray:
        """A zeroed one-dimensional array that starts on a cache line."""
        dtype = np.dtype(dtype)
        size = count * dtype.itemsize
        if self._used + size > self._block.size:
            self._block, self._used = np.frombuffer(_native.Arena(max(size, self.block)), np.uint8), 0
        array = self._block[self._used:self._used + size].view(dtype)
        self._used += -(-size // 64) * 64
        return array

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays.values())
