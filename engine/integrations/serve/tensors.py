"""Tensors of the protocol and arrays: what a request holds is checked before it is believed."""

from __future__ import annotations

import struct

import numpy as np
from kserve import InferInput, InferOutput
from kserve.errors import InvalidInput
from kserve.utils.numpy_codec import from_np_dtype, to_np_dtype

from ...errors import UnsupportedError
from ...ports import Port

LISTED = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}, "O": {str, bytes}}  # kind of a data type -> what lists may hold


def array_of(tensor: InferInput) -> np.ndarray:
    """The array that a request's tensor describes; for BYTES one of bytes, or of str from JSON.

    Raises: InvalidInput if data type, shape and data do not go together.
    """
    dtype = to_np_dtype(tensor.datatype)
    if dtype is None:
        raise InvalidInput(f"input {tensor.name!r}: there is no data type {tensor.datatype!r}")
    if not all(type(dim) is int and dim >= 0 for dim in tensor.shape):
        raise InvalidInput(f"input {tensor.name!r}: the shape {tensor.shape} is none")
    try:
        return _listed(tensor.data, np.dtype(dtype)).reshape(tensor.shape) if tensor.data else tensor.as_numpy()
    except (ValueError, TypeError, OverflowError, struct.error) as error:
        raise InvalidInput(f"input {tensor.name!r} of data type {tensor.datatype} and shape {tensor.shape}: {error}") from error


def text_of(name: str, array: np.ndarray) -> np.ndarray:
    """An array of str, as models take strings, from one of bytes or str. Raises InvalidInput for what is not UTF-8."""
    try:
        text = [item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1)]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input {name!r} of data type BYTES: {error}") from error
    return np.array(text, object).reshape(array.shape)


def _listed(data: list, dtype: np.dtype) -> np.ndarray:
    """A list, nested or not, as a flat array if its items are what the data type holds: no integer is rounded or cut off to fit."""
    flat = np.array(data, object).reshape(-1).tolist()
    if wrong := set(map(type, flat)) - LISTED[dtype.kind]:
        raise ValueError(f"its data holds items of type {wrong.pop().__name__}")
    with np.errstate(over="ignore"):
        return np.array(flat, dtype)


def tensor_of(name: str, array: np.ndarray, raw: bool) -> InferOutput:
    """A result as a tensor of the protocol; raw: its bytes, as gRPC takes them, rather than what is yet to be encoded."""
    tensor = InferOutput(name, list(array.shape), from_np_dtype(array.dtype), array)
    if raw:
        tensor.set_data_from_numpy(array)
    return tensor


def described(port: Port) -> dict:
    """An input or output in the protocol's metadata; open dimensions are -1.

    Raises: UnsupportedError if the protocol, as kserve speaks it, has nothing to hold it.
    """
    datatype = "BYTES" if port.type == "tensor(string)" else from_np_dtype(port.dtype) if port.is_array and port.dtype else None
    if datatype is None or port.dims is None:
        raise UnsupportedError(f"{port.name!r} is {port.type}, of shape {port.dims}: the protocol has no such tensors")
    return {"name": port.name, "datatype": datatype, "shape": [dim if isinstance(dim, int) else -1 for dim in port.dims]}
