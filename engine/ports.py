"""The inputs and outputs of a session: how they are described, and what an input accepts."""
from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from .errors import InvalidInputError, MemoryLimitError
from .plan.tensor import ADDRESSABLE


class NodeArg(NamedTuple):
    """An input or output as onnxruntime describes it; `shape` holds ints, names of symbolic dimensions, and None."""

    name: str
    shape: list[int | str | None]
    type: str


class Port(NamedTuple):
    """dtype: of the array; None where it is none (strings, sequences) or open. dims: ints, names and None; None: any rank."""

    name: str
    type: str
    is_array: bool
    dtype: np.dtype | None
    dims: tuple[int | str | None, ...] | None

    def node_arg(self) -> NodeArg:
        return NodeArg(self.name, list(self.dims or ()), self.type)

    def stand_in(self) -> np.ndarray | None:
        """An array of the port's shape and type that takes no memory, if both are fixed. Raises MemoryLimitError."""
        if not self.is_array or self.dtype is None or self.dims is None or not all(isinstance(d, int) for d in self.dims):
            return None
        if prod(n or 1 for n in self.dims) > ADDRESSABLE // self.dtype.itemsize:
            raise MemoryLimitError(f"input {self.name!r} of shape {list(self.dims)} fits no memory")
        return np.broadcast_to(np.zeros((), self.dtype), self.dims)

    def checked(self, given: object) -> object:
        """The value as the runtime takes it. Raises InvalidInputError if type, rank or a dimension does not fit."""
        if not self.is_array:
            return given
        try:
            array = np.asarray(given) if hasattr(given, "__array__") or not hasattr(given, "__dlpack__") else np.from_dlpack(given)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise InvalidInputError(f"input {self.name!r}: a {type(given).__name__} that is no array: {error}") from error
        expected = self.dtype if self.dtype is not None else array.dtype
        if array.dtype.newbyteorder("=") != expected:
            raise InvalidInputError(f"input {self.name!r}: data type {expected} expected, got {array.dtype}")
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        if self.dims is None:
            return array
        if len(self.dims) != array.ndim:
            raise InvalidInputError(f"input {self.name!r}: rank {len(self.dims)} expected ({list(self.dims)}), "
                                    f"got shape {list(array.shape)}")
        for axis, (dim, size) in enumerate(zip(self.dims, array.shape)):
            if isinstance(dim, int) and dim != size:
                raise InvalidInputError(f"input {self.name!r}: dimension {axis} must be {dim} ({list(self.dims)}), "
                                        f"got shape {list(array.shape)}")
        return array
