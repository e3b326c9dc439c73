"""Native operations that are run at once, on constants, while a plan is made."""
from __future__ import annotations

import numpy as np

from .program import assemble, make_step
from .tensor import F32, Buffer, Tensor, row_strides

PIECE = 1 << 20  # bytes of weights packed at a time


def evaluate(isa: str, step: str, source: np.ndarray, out: np.ndarray, params: dict, threads: int = 1) -> None:
    """Run one native operation (args in, out) on arrays."""
    tensors = {name: Tensor(Buffer("const", array.nbytes, array), array.shape, row_strides(array.shape), array.dtype)
               for name, array in (("in", source), ("out", out))}
    assemble(isa, [make_step(step, tensors, params, step)], []).run([], threads)


class Stage:
    """Where what lies in a file, at any address, is brought to be read by operations. Fresh memory for each weight would cost more
    than packing it."""

    def __init__(self) -> None:
        self._memory = np.empty(PIECE // F32.itemsize, F32)

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """The array as float32, row-major and aligned, until the next call."""
        if array.size > self._memory.size or (array.dtype == F32 and array.flags.c_contiguous and array.flags.aligned):
            return np.require(array, F32, ["C", "ALIGNED"])
        staged = self._memory[:array.size].reshape(array.shape)
        staged[...] = array
        return staged
