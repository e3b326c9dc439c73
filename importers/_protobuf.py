"""Splitting a serialised ONNX model into its structure and its weights without copying the weights.

Protobuf's own parser copies every weight into its arena and again at each access, and refuses more than 2 GB. The wire
format is simple enough to walk: a message is a sequence of (field number, wire type, payload). Here the payloads of
`ModelProto.graph.initializer[i].raw_data` are set aside as views, and everything else becomes a small ModelProto.
Source: https://protobuf.dev/programming-guides/encoding and onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError

from infold.errors import InvalidModelError

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_MOST = (1 << 31) - 1  # bytes of a message
_EMPTY_RAW_DATA = bytes([_RAW_DATA << 3 | _LENGTH, 1, 0])


class Truncated(InvalidModelError):
    """The bytes end in the middle of a field."""


def split(data: memoryview) -> tuple[onnx.ModelProto, list[memoryview | None]]:
    """Parse a serialised ModelProto, leaving out the main graph's weights.

    Args:
        data: the whole model, 1-D bytes.
    Returns:
        The model, in which each initializer's `raw_data` is one placeholder byte; and, parallel to
        `model.graph.initializer`, a view of the true `raw_data`, None where the tensor keeps its data elsewhere.
    Raises:
        Truncated: a field reaches beyond the end of the data.
        InvalidModelError: the data is not protobuf, or not a ModelProto.
    """
    raw: list[memoryview | None] = []
    model: list[memoryview] = []
    graph: list[memoryview | bytes] = []
    for number, field, content in _fields(data):
        if number != _GRAPH or content is None:
            model.append(_within_limit(field))
            continue
        for number_in_graph, field_in_graph, payload in _fields(content):
            if number_in_graph != _INITIALIZER or payload is None:
                graph.append(_within_limit(field_in_graph))
                continue
            tensor, view = _without_raw_data(payload)
            raw.append(view)
            graph.append(_delimited(_INITIALIZER, tensor))
    try:
        proto = onnx.ModelProto.FromString(b"".join(model))
        if graph:
            proto.graph.MergeFromString(b"".join(graph))
        return proto, raw
    except DecodeError as error:
        raise InvalidModelError(f"not an ONNX model, or corrupt: {error}") from None


def _without_raw_data(tensor: memoryview) -> tuple[bytes, memoryview | None]:
    """Return a serialised TensorProto with a placeholder for its `raw_data`, and a view of the latter."""
    rest: list[memoryview | bytes] = []
    raw = None
    for number, field, payload in _fields(tensor):
        if number == _RAW_DATA and payload is not None:
            raw = payload
            rest.append(_EMPTY_RAW_DATA)
        else:
            rest.append(_within_limit(field))
    return b"".join(rest), raw


def _within_limit(field: memoryview) -> memoryview:
    """The field, which is copied next, unless protobuf would refuse it in any case."""
    if len(field) > _MOST:
        raise InvalidModelError(
            f"a field of {len(field)} bytes: only raw_data of the main graph's weights may exceed protobuf's 2 GB"
        )
    return field


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """Yield (field number, the whole field, its payload if length-delimited) for each field of one message."""
    position, end = 0, len(data)
    while position < end:
        start = position
        if (key := data[position]) < 0x80:  # most numbers are as short
            position += 1
        else:
            key, position = _varint(data, position)
        number, wire, payload = key >> 3, key & 7, None
        if wire == _LENGTH:
            size, position = _varint(data, position)
            payload = data[position : position + size]
            position += size
        elif wire == _VARINT:
            _, position = _varint(data, position)
        elif wire in (_FIXED32, _FIXED64):
            position += 4 if wire == _FIXED32 else 8
        else:
            raise InvalidModelError(f"not an ONNX model: wire type {wire} at byte {start} is not protobuf as ONNX uses it")
        if number == 0:
            raise InvalidModelError(f"not an ONNX model: field number 0 at byte {start}")
        if position > end:
            raise Truncated(f"truncated: field {number} needs {position - end} bytes more than there are")
        yield number, data[start:position], payload


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return (value, position after it)."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise Truncated("truncated: the data ends inside a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise InvalidModelError(f"not an ONNX model: a number longer than 64 bits before byte {position}")


def _delimited(number: int, payload: bytes) -> bytes:
    """Return one length-delimited field."""
    head, size = bytearray([number << 3 | _LENGTH]), len(payload)
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + payload
