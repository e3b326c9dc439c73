"""Tensor data of an ONNX model: checked against its declared size, external data kept inside the model's folder."""

from __future__ import annotations

import math
import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from infold.errors import ExternalDataError, InvalidModelError, UnsupportedError
from infold.importers._legality import MAX_RANK

# The typed field of TensorProto that holds a data type's elements (complex: as pairs); int32_data holds the rest.
_FIELDS = {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT64: "uint64_data",
    ir.DataType.UINT32: "uint64_data",
    ir.DataType.STRING: "string_data",
}
LARGE = 1 << 16  # bytes of a weight that is worth reading where it lies, and whose pages are worth giving back
_MAX_DENSE = 1 << 28  # elements a sparse initializer may have once dense


def read(
    proto: onnx.TensorProto, raw: memoryview | None, folder: str | None, view: bool = False
) -> ir.TensorProtocol:
    """Return a checked tensor that owns its data (aligned, native byte order, shape `proto.dims`).

    Args:
        proto: the tensor's header, and its data unless `raw` or external.
        raw: the tensor's `raw_data`, if it was set aside.
        folder: the model's folder, None if it has none (a model from bytes).
        view: a large tensor may be a view of `raw` or of the mapped external file, of any alignment.
    Raises:
        InvalidModelError: impossible dimensions, unknown data type, or data whose size does not fit them.
        ExternalDataError: external data that is missing, too short or outside the folder.
    """
    name = proto.name
    try:
        dtype = ir.DataType(proto.data_type)
    except ValueError:
        raise UnsupportedError(f"tensor {name!r}: unknown data type {proto.data_type}") from None
    if dtype == ir.DataType.UNDEFINED:
        raise InvalidModelError(f"tensor {name!r} has no data type")
    if any(dim < 0 for dim in proto.dims) or len(proto.dims) > MAX_RANK:
        raise InvalidModelError(
            f"tensor {name!r} has a negative dimension, or more than {MAX_RANK}: {list(proto.dims)}"
        )
    size = math.prod(proto.dims)
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        if dtype == ir.DataType.STRING:
            raise ExternalDataError(f"tensor {name!r}: strings cannot be external data")
        raw, view = memoryview(_read_external(proto, _bytes(size, dtype), folder, view)), True
    elif raw is None and proto.HasField("raw_data"):
        raw = memoryview(proto.raw_data)
    if raw is None:
        _check_typed_data(proto, size, dtype)
        tensor = ir.serde.deserialize_tensor(proto)
        return tensor if dtype == ir.DataType.STRING else ir.Tensor(tensor.numpy(), dtype=dtype, name=name)
    if dtype == ir.DataType.STRING:
        raise InvalidModelError(f"tensor {name!r}: strings cannot be stored as raw data")
    if len(raw) != _bytes(size, dtype):
        raise InvalidModelError(
            f"tensor {name!r} of type {dtype.name} and shape {list(proto.dims)} needs "
            f"{_bytes(size, dtype)} bytes, the model has {len(raw)}"
        )
    if dtype.bitwidth < 8:
        packed = onnx.TensorProto(name=name, dims=proto.dims, data_type=proto.data_type, raw_data=bytes(raw))
        return ir.Tensor(ir.serde.deserialize_tensor(packed).numpy(), dtype=dtype, name=name)
    if dtype == ir.DataType.BOOL:
        array = np.frombuffer(raw, np.uint8) != 0
    else:
        array = np.frombuffer(raw, dtype.numpy().newbyteorder("<"))
        if not (view and array.dtype.isnative and array.nbytes >= LARGE):
            array = array.astype(dtype.numpy())  # a copy: aligned, native
    return ir.Tensor(array.reshape(tuple(proto.dims)), dtype=dtype, name=name)


def external_file(proto: onnx.TensorProto, folder: str | None) -> list[str]:
    """The path of the file that holds an external tensor; none of others."""
    if proto.data_location != onnx.TensorProto.EXTERNAL:
        return []
    return [str((Path(folder or ".") / entry.value).absolute()) for entry in proto.external_data if entry.key == "location"]


def settle(proto: onnx.TensorProto, folder: str | None) -> None:
    """Check a tensor, and move its data into `raw_data`, in place, if it is external. Errors as for `read`."""
    tensor = read(proto, None, folder)
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        proto.ClearField("external_data")
        proto.ClearField("data_location")
        proto.raw_data = tensor.tobytes()


def densify(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Return the dense form of a sparse initializer (COO: indices are linear [nnz] or coordinates [nnz, rank])."""
    name, dims = sparse.values.name, list(sparse.dims)
    size = math.prod(dims)
    if any(dim < 0 for dim in dims):
        raise InvalidModelError(f"sparse tensor {name!r} has a negative dimension: {dims}")
    if size > _MAX_DENSE:
        raise UnsupportedError(f"sparse tensor {name!r} of shape {dims} is too large to make dense")
    values = read(sparse.values, None, None).numpy().ravel()
    indices = read(sparse.indices, None, None).numpy()
    if indices.dtype != np.int64 or indices.shape not in ((len(values),), (len(values), len(dims))):
        raise InvalidModelError(
            f"sparse tensor {name!r}: {len(values)} values do not fit indices of shape {indices.shape}"
        )
    try:
        flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dims)
        dense = np.zeros(size, values.dtype)
        if (flat < 0).any():
            raise IndexError("negative index")
        dense[flat] = values
    except (IndexError, ValueError) as error:
        raise InvalidModelError(f"sparse tensor {name!r} of shape {dims}: {error}") from None
    return onnx.numpy_helper.from_array(dense.reshape(dims), name)


def map_tensors(model: ir.Model, change: Callable[[ir.TensorProtocol], ir.TensorProtocol]) -> None:
    """Replace in place every tensor of a model (initializers and attributes, subgraphs and functions included)."""
    for graph in _graphs(model):
        for value in graph.initializers.values() if isinstance(graph, ir.Graph) else ():
            if value.const_value is not None:
                value.const_value = change(value.const_value)
        for node in graph:
            for name, attr in list(node.attributes.items()):
                if attr.is_ref():
                    continue
                if attr.type == ir.AttributeType.TENSOR:
                    node.attributes[name] = ir.AttrTensor(name, change(attr.value))
                elif attr.type == ir.AttributeType.TENSORS:
                    node.attributes[name] = ir.AttrTensors(name, [change(tensor) for tensor in attr.value])


def _graphs(model: ir.Model):
    yield from model.graphs()
    for function in model.functions.values():
        yield function
        yield from function.subgraphs()


def _bytes(size: int, dtype: ir.DataType) -> int:
    return (size * dtype.bitwidth + 7) // 8


def _check_typed_data(proto: onnx.TensorProto, size: int, dtype: ir.DataType) -> None:
    own = _FIELDS.get(dtype, "int32_data")
    found = {field: len(getattr(proto, field)) for field in {*_FIELDS.values(), "int32_data"}}
    if wrong := [field for field, count in found.items() if count and field != own]:
        raise InvalidModelError(f"tensor {proto.name!r} of type {dtype.name} keeps its data in {own}, not {wrong[0]}")
    found = found[own]
    pair = dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128)
    packed = dtype != ir.DataType.STRING and dtype.bitwidth in (2, 4)
    expected = _bytes(size, dtype) if packed else size * (2 if pair else 1)
    if found != expected:
        raise InvalidModelError(
            f"tensor {proto.name!r} of type {dtype.name} and shape {list(proto.dims)} needs "
            f"{expected} values, the model has {found}"
        )


class ExternalMapping(mmap.mmap):
    """The part of an external file that holds one tensor."""


def _read_external(proto: onnx.TensorProto, size: int, folder: str | None, view: bool) -> bytearray | memoryview:
    """Return the `size` bytes of an external tensor, from a regular file inside `folder`; if `view`, large ones are mapped."""
    what = f"tensor {proto.name!r}"
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or size)
    except ValueError:
        raise ExternalDataError(
            f"{what}: offset {entries.get('offset')!r} and length {entries.get('length')!r} "
            "of its external data must be numbers"
        ) from None
    if not location:
        raise ExternalDataError(f"{what} has external data without a location")
    if folder is None:
        raise ExternalDataError(
            f"{what} keeps its data in the file {location!r}, but the model has no folder: "
            "load it from its path, or pass folder="
        )
    if offset < 0 or length != size:
        raise ExternalDataError(f"{what} needs {size} bytes; its external data says offset {offset}, length {length}")
    path = _inside(folder, location, what)
    try:
        with open(path, "rb", buffering=0, opener=_open_regular) as file:
            status = os.fstat(file.fileno())
            if status.st_nlink > 1:
                raise ExternalDataError(
                    f"{what}: external data {location!r} has {status.st_nlink} hard links and may be "
                    "a file from elsewhere; make it a copy"
                )
            if offset + size > status.st_size:
                raise ExternalDataError(
                    f"{what} needs bytes {offset} to {offset + size} of {location!r}, which has {status.st_size}"
                )
            if view and size >= LARGE:
                start = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
                mapping = ExternalMapping(file.fileno(), offset + size - start, access=mmap.ACCESS_READ, offset=start)
                return memoryview(mapping)[offset - start :]
            return _read(file.fileno(), size, offset)
    except OSError as error:
        raise ExternalDataError(
            f"{what}: external data {location!r} cannot be read: {error.strerror or error}"
        ) from None


def _inside(folder: str, location: str, what: str) -> str:
    """Return the real path of `location`, which must lie in `folder` by name and after following links."""
    parts = location.replace("\\", "/").split("/")
    if os.path.isabs(location) or ".." in parts or "\0" in location or ":" in parts[0]:
        raise ExternalDataError(f"{what}: external data {location!r} must be a path inside the model's folder")
    root = os.path.realpath(folder or ".")
    path = os.path.realpath(os.path.join(root, location))
    if os.path.commonpath([root, path]) != root:
        raise ExternalDataError(
            f"{what}: external data {location!r} leads by a symbolic link out of the model's folder"
        )
    return path


def _open_regular(path: str, flags: int) -> int:
    """Open without following a link that was put there since the check, and without blocking on a pipe."""
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor


def _read(descriptor: int, size: int, offset: int) -> bytearray:
    """Read `size` bytes, in as many system calls as it takes (Linux delivers at most 2 GiB in one)."""
    data, done = bytearray(size), 0
    while done < size:
        count = os.preadv(descriptor, [memoryview(data)[done:]], offset + done)
        if count == 0:
            raise OSError("the file became shorter while it was read")
        done += count
    return data
