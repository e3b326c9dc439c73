"""Caffe models: a net in text form (`.prototxt`) and its weights (`.caffemodel`), of all three generations of Caffe.

Only the TEST phase is converted; layers for training, losses and accuracies are left out. BatchNorm and Scale stay
nodes of their own: folding them, and saying where they went, is the passes' work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
from google.protobuf.message import Message

from infold.errors import Error, UnsupportedError
from infold.importers import (  # noqa: F401 - the modules of layers register them
    caffe_detection,
    caffe_elementwise,
    caffe_graph,
    caffe_linear,
    caffe_normalization,
    caffe_pooling,
    caffe_schema,
    caffe_shapes,
)
from infold.importers._files import mapped
from infold.importers.onnx import load as load_onnx

Shapes = Mapping[str, Sequence[int]]


def load(
    source: str | os.PathLike,
    *,
    prototxt: str | os.PathLike | None = None,
    weights: str | os.PathLike | None = None,
    input_shapes: Shapes | None = None,
) -> ir.Model:
    """Load a Caffe model from the path of either of its files.

    Args:
        source: a `.prototxt` or a `.caffemodel`.
        prototxt, weights: the other file, if it does not lie beside `source` under the same stem. A net without any
            weights needs no `.caffemodel`.
        input_shapes: shapes of inputs by blob name, in place of those in the net; needed where the net gives none.
    Returns:
        A legal ONNX model. Values have the names of blobs, nodes those of layers; a blob overwritten in place has its
        name after the last write, `blob@layer` after an earlier one.
    Raises:
        InvalidModelError: a file that is missing, truncated or no Caffe model; a net that contradicts itself or its
            weights; names the layer, the blob and what was expected.
        UnsupportedError: a layer, or a form of it, that the importer does not know.
    """
    source = Path(source)
    if source.suffix.lower() == ".caffemodel":
        prototxt, weights = prototxt or source.with_suffix(".prototxt"), source
    else:
        prototxt, beside = source, source.with_suffix(".caffemodel")
        weights = weights or (beside if beside.exists() else None)
    net = _parse(caffe_schema.parse_text, Path(prototxt))
    stored = _parse(caffe_schema.parse_binary, Path(weights)) if weights else None
    try:
        return _convert(net, stored, input_shapes)
    except Error as error:
        hint = "" if weights else f" (there is no {source.with_suffix('.caffemodel').name}; give the weights with weights=)"
        raise type(error)(f"{prototxt}: {error}{hint}") from error.__cause__


def loads(prototxt: str | bytes, caffemodel: bytes | None = None, *, input_shapes: Shapes | None = None) -> ir.Model:
    """Load a Caffe model from the contents of its files; otherwise as `load`."""
    weights = caffe_schema.parse_binary(caffemodel) if caffemodel is not None else None
    return _convert(caffe_schema.parse_text(prototxt), weights, input_shapes)


def _convert(net: Message, weights: Message | None, input_shapes: Shapes | None) -> ir.Model:
    return load_onnx(caffe_graph.convert(net, weights, input_shapes))


def _parse(parse: Callable[[bytes], Message], path: Path) -> Message:
    """Parse a file; its bytes are gone when this returns."""
    try:
        data = bytes(mapped(path))
        if data.startswith(b"\x89HDF"):
            raise UnsupportedError("Caffe models in HDF5 are not supported; save the net as a binary .caffemodel")
        return parse(data)
    except Error as error:
        raise type(error)(f"{path}: {error}") from error.__cause__
