"""Caffe's protobuf messages, built in memory from `caffe_fields`, and the parsing of nets and weights.

The types live in a descriptor pool of their own, so another Caffe package in the process does no harm. Of a
`.caffemodel` only names and blobs are read, as `WeightsParameter`: forks of Caffe disagree about the numbers of the
layers' parameters, and the prototxt has them anyway.
"""

from __future__ import annotations

import warnings

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError, Message

from infold.errors import InvalidModelError
from infold.importers.caffe_fields import SCHEMA

_MAX_TEXT = 2 << 20  # the largest nets in use have a quarter of that


def _message_types() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="infold_caffe.proto", package="caffe", syntax="proto2")
    Field = descriptor_pb2.FieldDescriptorProto
    scalars = set(Field.Type.keys())
    message = file
    for line in SCHEMA.strip().splitlines():
        kind, *items = line.split()
        if not line.startswith(" "):
            message = file if items else file.message_type.add(name=kind)
        if kind == "enum":
            enum = message.enum_type.add(name=items[0])
            for item in items[1:]:
                name, number = item.split("=")
                enum.value.add(name=name, number=int(number))
            continue
        type_name, label = kind.removesuffix("*"), Field.LABEL_REPEATED if kind.endswith("*") else Field.LABEL_OPTIONAL
        for item in items:
            name, number, default = (*item.replace(":", "=").split("="), "")[:3]
            field = message.field.add(name=name, number=int(number), label=label)
            if f"TYPE_{type_name.upper()}" in scalars:
                field.type = Field.Type.Value(f"TYPE_{type_name.upper()}")
            else:
                field.type_name = type_name
            if default:
                field.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        entry.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{entry.name}"))
        for entry in file.message_type
    }


MESSAGES = _message_types()
NetParameter = MESSAGES["NetParameter"]
LayerParameter = MESSAGES["LayerParameter"]
WeightsParameter = MESSAGES["WeightsParameter"]


def parse_text(text: str | bytes) -> Message:
    """Parse a `.prototxt` into a NetParameter. Fields this schema lacks are skipped, with one warning.

    Raises:
        InvalidModelError: not a net in protobuf's text format; says line and column.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")  # comments come in every encoding
    if len(text) > _MAX_TEXT:
        raise InvalidModelError(f"a prototxt of {len(text)} characters; the limit is {_MAX_TEXT}")
    try:
        try:
            return text_format.Parse(text, NetParameter())
        except text_format.ParseError as error:
            net = text_format.Parse(text, NetParameter(), allow_unknown_field=True)
            warnings.warn(f"the prototxt has fields that the Caffe importer does not know; the first: {error}", stacklevel=2)
            return net
    except text_format.ParseError as error:
        raise InvalidModelError(f"not a Caffe net in text format: {error}") from None
    except (RecursionError, ValueError) as error:
        raise InvalidModelError(f"not a Caffe net in text format: {error!r}") from None


def parse_binary(data: bytes | memoryview) -> Message:
    """Parse a `.caffemodel` into a WeightsParameter.

    Raises:
        InvalidModelError: not a serialised net, or truncated, or without layers.
    """
    weights = WeightsParameter()
    try:
        weights.ParseFromString(data)
    except (DecodeError, RecursionError, ValueError) as error:
        raise InvalidModelError(f"not a Caffe model, or truncated: {error}") from None
    if not weights.layer and not weights.layers:
        raise InvalidModelError("not a Caffe model: there is no layer in it")
    return weights
