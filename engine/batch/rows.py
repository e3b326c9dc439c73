"""Pictures to rows: decoded, run in batches of one fixed size, the outputs as columns of an Arrow table."""
from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..api import InferenceSession, SessionOptions
from ..errors import InvalidInputError, ShapeError, UnsupportedError
from ..ports import Port
from ..preprocess import Preprocess
from .arrow import pa

USUAL = 8  # pictures in a batch


def batch_size(name: str, dims: Sequence[int | str | None] | None, preprocess: Preprocess, wanted: int | None) -> int:
    """How many pictures run at a time: what the model's input fixes, else what is wanted.

    Raises: InvalidInputError if these contradict, or pictures keep sizes of their own and do not run one by one.
    """
    fixed = dims[0] if dims and isinstance(dims[0], int) else None
    if wanted is not None and fixed not in (None, wanted):
        raise InvalidInputError(f"the input {name!r} fixes the batch at {fixed}, {wanted} was asked")
    size = fixed or wanted or (USUAL if preprocess.shape else 1)
    if preprocess.shape is None and size != 1:
        raise InvalidInputError(f"batches of {size} need pictures of one size: declare `crop` or `resize = [height, width]`")
    return size


class Rows:
    """A session and the preprocessing of its only input.

    A batch has always the same size: free places, and those of unreadable pictures, hold zeros. So one plan serves all of them, and
    a picture's row does not depend on what became of its neighbours.

    Args:
        model: whatever `InferenceSession` takes.
        size: of a batch; None: see `batch_size`.
    Raises:
        InvalidInputError, UnsupportedError: not one array as input, outputs that Arrow has no type or no name for.
    """

    def __init__(self, model: object, preprocess: Preprocess, size: int | None, options: SessionOptions) -> None:
        self._session, self.preprocess = InferenceSession(model, options), preprocess
        ports: list[Port] = list(self._session.inputs.values())
        if len(ports) != 1 or not ports[0].is_array:
            raise InvalidInputError(f"rows are of models with one array as input; this one has {[port.name for port in ports]}")
        self._input = ports[0].name
        self.size = batch_size(self._input, ports[0].dims, preprocess, size)
        self._fields = [_fields(port) for port in self._session.outputs.values()]
        names = ["path", "error", *(field.name for pair in self._fields for field in pair)]
        if double := [name for name in names if names.count(name) > 1]:
            raise UnsupportedError(f"two columns would be called {double[0]!r}: rename that output of the model")

    def decode(self, picture: Any) -> np.ndarray | str:
        """A picture as the model takes it, without the batch; or why it could not be read."""
        try:
            return self.preprocess.one(picture)
        except InvalidInputError as error:
            name = os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else "picture"
            return str(error).removeprefix(f"{name}: ")

    def columns(self, decoded: Iterable[np.ndarray | str], count: int) -> dict[str, pa.Array]:
        """Outputs and errors of the next `count` pictures.

        For each output NAME, its elements in row-major order (NAME) and the shape that a run of the picture alone gives
        (NAME.shape); both null where `error` has text.
        """
        decoded, errors = iter(decoded), []
        values: list[list[np.ndarray | None]] = [[] for _ in self._fields]
        while count > 0:
            given = list(islice(decoded, min(self.size, count)))
            count -= len(given)
            outputs = self._run(given)
            for place, picture in enumerate(given):
                errors.append(picture if isinstance(picture, str) else None)
                for each, output in zip(values, outputs):
                    each.append(None if errors[-1] is not None else output[place : place + 1] if self.size > 1 else output)
        columns = {}
        for (data, shape), arrays in zip(self._fields, values):
            columns[data.name] = pa.array([None if array is None else array.ravel() for array in arrays], data.type)
            columns[shape.name] = pa.array([None if array is None else array.shape for array in arrays], shape.type)
        return columns | {"error": pa.array(errors, pa.string())}

    def _run(self, given: list[np.ndarray | str]) -> list[np.ndarray]:
        """The outputs; what cannot be run for its size becomes its reason in `given`."""
        readable = {place: picture for place, picture in enumerate(given) if not isinstance(picture, str)}
        if not readable:
            return [np.empty(0)] * len(self._fields)
        first = next(iter(readable.values()))
        batch = np.zeros((self.size, *first.shape), first.dtype)
        for place, picture in readable.items():
            batch[place] = picture
        try:
            outputs = self._session.run(None, {self._input: batch})
        except (InvalidInputError, ShapeError) as error:
            if self.preprocess.shape is not None:  # then it is no picture's fault
                raise
            given[0] = str(error)
            return [np.empty(0)] * len(self._fields)
        for (field, _), output in zip(self._fields, outputs):
            if self.size > 1 and output.shape[:1] != (self.size,):
                raise UnsupportedError(f"the output {field.name!r} of shape {output.shape} has no row for each of {self.size} "
                                       "pictures: run them one by one")
        return outputs


def _fields(port: Port) -> tuple[pa.Field, pa.Field]:
    try:
        kind = pa.from_numpy_dtype(port.dtype) if port.is_array and port.dtype is not None else None
    except (pa.ArrowNotImplementedError, TypeError):
        kind = None
    if kind is None:
        raise UnsupportedError(f"the output {port.name!r} is {port.type}, for which Arrow has no type")
    return pa.field(port.name, pa.large_list(kind)), pa.field(f"{port.name}.shape", pa.list_(pa.int64()))
