"""ONNX models: from a path, bytes, a ModelProto or an onnx_ir.Model, checked, with all weights in memory."""

from __future__ import annotations

import mmap
import os
import weakref

import numpy as np
import onnx
import onnx_ir as ir

from infold import trivial
from infold.errors import Error, InvalidModelError, MemoryLimitError, UnsupportedError, first_line, root_cause
from infold.files import mapping, pages
from infold.importers import _legality, _protobuf, _tensors
from infold.importers._files import mapped

# Attributes of a Constant that hold numbers: (type, name) -> (field, type of the numbers)
_NUMBERS = {(onnx.AttributeProto.INT, "value_int"): ("i", np.int64), (onnx.AttributeProto.INTS, "value_ints"): ("ints", np.int64),
            (onnx.AttributeProto.FLOAT, "value_float"): ("f", np.float32),
            (onnx.AttributeProto.FLOATS, "value_floats"): ("floats", np.float32)}
EXTERNAL_FILES = "external_files"  # in a loaded model's `meta`: paths of the files beside its own, a list


def load(
    source: str | os.PathLike | bytes | onnx.ModelProto | ir.Model,
    *,
    folder: str | os.PathLike | None = None,
    lean: bool = False,
) -> ir.Model:
    """Load an ONNX model of any opset the installed onnx package knows.

    Every weight is read once, into memory of its own: the file may change or disappear afterwards.

    Args:
        source: path, serialised ModelProto, ModelProto, or onnx_ir.Model. Never modified; an onnx_ir.Model that needs
            no change is returned as it is.
        folder: where external data lies, if not beside the path. External data never leaves this folder.
        lean: for a caller that wants the model only to run it. Notes (doc strings, metadata) are dropped, and large weights stay
            views of the file, or the external files, until `settle` gives them memory of their own, which must be soon: they are
            meant to be read once. Pages that nobody reads any more are given back.
    Returns:
        A legal model, nodes topologically sorted, no tensor external.
    Raises:
        InvalidModelError: not a model, truncated, or not legal ONNX; names the node or value.
        ExternalDataError: external data missing, too short, outside the folder, or no folder known.
        UnsupportedError: an opset, IR version or data type newer than the installed onnx package.
        TypeError: `source` is of another type.
    """
    folder = os.fspath(folder) if folder is not None else None
    if isinstance(source, ir.Model):
        return _from_ir(source)
    if isinstance(source, onnx.ModelProto):
        try:
            source = source.SerializeToString()
        except ValueError as error:
            raise InvalidModelError(
                f"the ModelProto cannot be serialised ({error}); above 2 GB, load it by its path"
            ) from None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(memoryview(source).cast("B"), folder)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(os.fspath(source), folder, lean)
    raise TypeError(f"a model is a path, bytes, a ModelProto or an onnx_ir.Model, not {type(source).__name__}")


def settle(model: ir.Model) -> None:
    """Give every initializer that still is a view of a mapped file (see `load`) memory of its own."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.Tensor) and mapping(tensor.numpy()) is not None:
            value.const_value = ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)


def within_file(model: ir.Model) -> bool:
    """Whether all large weights of a model are views of its file (see `load`), which then is all it takes to read them again."""
    arrays = (value.const_value.numpy() for value in model.graph.initializers.values())
    return all(type(mapping(array)) is mmap.mmap for array in arrays if array.nbytes >= _tensors.LARGE)


def _give_back_pages(model: ir.Model) -> None:
    """Let the pages under each large weight of the mapped file go when its last view goes."""
    for value in model.graph.initializers.values():
        array = value.const_value.numpy()
        while isinstance(array.base, np.ndarray):  # which every view of it keeps alive
            array = array.base
        if array.nbytes >= _tensors.LARGE and type(mapped := mapping(array)) is mmap.mmap:
            weakref.finalize(array, mapped.madvise, mmap.MADV_DONTNEED, *pages(array)).atexit = False


def _from_path(path: str, folder: str | None, lean: bool) -> ir.Model:
    try:
        data = mapped(path)
        model = _from_bytes(data, os.path.dirname(path) or "." if folder is None else folder, lean)
        if lean and hasattr(mmap, "MADV_DONTNEED"):
            _give_back_pages(model)
        return model
    except Error as error:
        raise type(error)(f"{path}: {error}") from error.__cause__


def _from_bytes(data: memoryview, folder: str | None, lean: bool = False) -> ir.Model:
    if len(data) == 0:
        raise InvalidModelError("the model is empty")
    if _looks_like_text(data):
        raise InvalidModelError("not an ONNX model but text")
    proto, raw = _protobuf.split(data)
    try:
        return _build(proto, raw, folder, lean)
    except UnicodeDecodeError as error:
        raise InvalidModelError(f"a name in the model is not UTF-8: {error.object[:40]!r}") from None


def _build(proto: onnx.ModelProto, raw: list[memoryview | None], folder: str | None, lean: bool) -> ir.Model:
    """Check a model whose main graph's weights are set aside, and make the onnx_ir.Model."""
    walk = _legality.Walk(proto)
    if lean:
        _legality.drop_notes(walk)
    _legality.normalise(walk)
    weights = {tensor.name: _tensors.read(tensor, data, folder, lean) for tensor, data in zip(proto.graph.initializer, raw)}
    for sparse in proto.graph.sparse_initializer:
        dense = proto.graph.initializer.add()
        dense.CopyFrom(_tensors.densify(sparse))
        weights[dense.name] = _tensors.read(dense, None, None)
    proto.graph.ClearField("sparse_initializer")
    if any(not tensor.name for tensor in proto.graph.initializer):
        raise InvalidModelError("an initializer of the model has no name")
    moved = _legality.sort(proto)
    lifted = _lift(proto, weights) if lean else {}
    if moved or lifted:
        walk = _legality.Walk(proto)
    read = {name for node in walk.nodes for name in node.input} | {value.name for graph in walk.graphs for value in graph.output}
    for name, found in lifted.items():
        if name in read:
            weights[name] = tensor = found if isinstance(found, ir.Tensor) else ir.Tensor(found, name=name)
            proto.graph.initializer.add(name=name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
    external = {path for tensor in proto.graph.initializer for path in _tensors.external_file(tensor, folder)}
    for tensor in walk.tensors:
        external.update(_tensors.external_file(tensor, folder))
        _tensors.settle(tensor, folder)
    model = _deserialize(proto)
    model.meta[EXTERNAL_FILES] = sorted(external)
    for name, tensor in weights.items():
        model.graph.initializers[name].const_value = tensor
    if walk.tensors:
        done = set(map(id, weights.values()))
        _tensors.map_tensors(model, lambda tensor: tensor if id(tensor) in done else _own(tensor))
    _legality.check(walk)
    return model


def _lift(proto: onnx.ModelProto, weights: dict[str, ir.TensorProtocol]) -> dict[str, ir.Tensor | np.ndarray]:
    """Take small Constants out of the main graph, and what some exporters compute of them and of weights (biases of zeros, other
    shapes of weights), before nodes are made of them: there may be hundreds.

    Returns them by name.
    """
    graph, lifted, places = proto.graph, {}, []
    opset = max((item.version for item in proto.opset_import if not item.domain), default=0)
    inputs, outputs = {value.name for value in graph.input}, {value.name for value in graph.output}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    fixed = {name: tensor.numpy() for name, tensor in weights.items() if isinstance(tensor, ir.Tensor) and name not in inputs}
    for place, node in enumerate(graph.node):
        if node.domain or len(node.output) != 1 or not (name := node.output[0]) or name in outputs:
            continue
        found = _constant(node, opset) if node.op_type == "Constant" else _of_constants(node, fixed, types)
        if found is not None:
            lifted[name] = found
            fixed[name] = found.numpy() if isinstance(found, ir.Tensor) else found
            places.append(place)
    for place in reversed(places):
        del graph.node[place]
    return lifted


def _constant(node: onnx.NodeProto, opset: int) -> ir.Tensor | np.ndarray | None:
    """What a small Constant holds."""
    if node.input or len(node.attribute) != 1 or (attribute := node.attribute[0]).ref_attr_name:
        return None
    kind, tensor = attribute.type, attribute.t
    if attribute.name == "value" and kind == onnx.AttributeProto.TENSOR and tensor.ByteSize() < _tensors.LARGE \
            and tensor.data_type != onnx.TensorProto.STRING and tensor.data_location != onnx.TensorProto.EXTERNAL:
        found = _tensors.read(tensor, None, None)
        return ir.Tensor(found.numpy(), dtype=found.dtype, name=node.output[0])
    if (kind, attribute.name) in _NUMBERS and opset >= 12:
        field, dtype = _NUMBERS[kind, attribute.name]
        return np.array(getattr(attribute, field), dtype)
    return None


def _of_constants(node: onnx.NodeProto, fixed: dict[str, np.ndarray], types: dict[str, int]) -> np.ndarray | None:
    """What the node makes of constants, where that takes next to nothing. types: of the values that are computed."""
    if node.op_type not in trivial.OPERATORS:
        return None
    inputs = [fixed.get(name) for name in node.input]
    if node.op_type == "CastLike" and inputs[1] is None and (kind := types.get(node.input[1])):
        inputs[1] = np.empty(0, ir.DataType(kind).numpy())
    if any(array is None for array in inputs):
        return None
    return trivial.compute(node.op_type, {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}, inputs)


def _deserialize(proto: onnx.ModelProto) -> ir.Model:
    try:
        return ir.from_proto(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, NotImplementedError) as error:
        cause = root_cause(error)
        kind = {NotImplementedError: UnsupportedError, MemoryError: MemoryLimitError}.get(type(cause), InvalidModelError)
        raise kind(f"onnx_ir refuses the model: {first_line(cause)}") from error


def _own(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a checked tensor that is independent of the protobuf it came from."""
    return _tensors.read(tensor.raw, None, None) if isinstance(tensor, ir.serde.TensorProtoTensor) else tensor


def _from_ir(model: ir.Model) -> ir.Model:
    """Check a model that already is in onnx_ir form; external tensors are read through their own base_dir."""
    _check_depth(model)
    light = model.clone()
    external = False

    def placeholder(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        nonlocal external
        external |= isinstance(tensor, ir.ExternalTensor)
        return (
            ir.ExternalTensor("weights", 0, 0, tensor.dtype, shape=ir.Shape(tensor.shape), name=tensor.name or "")
            if tensor.dtype != ir.DataType.STRING
            else tensor
        )

    _tensors.map_tensors(light, placeholder)
    try:
        proto = ir.to_proto(light)
    except (ir.serde.SerdeError, ValueError, TypeError) as error:
        raise InvalidModelError(f"onnx_ir cannot serialise the model: {error}") from error
    _legality.normalise(_legality.Walk(proto))
    moved = _legality.sort(proto)
    _legality.check(_legality.Walk(proto))
    if not (external or moved):
        return model
    model = model.clone()
    _tensors.map_tensors(
        model,
        lambda tensor: (
            _tensors.read(ir.to_proto(tensor), None, os.fspath(tensor.base_dir) or None)
            if isinstance(tensor, ir.ExternalTensor)
            else tensor
        ),
    )
    if moved:
        for graph in [*model.graphs(), *model.functions.values()]:
            graph.sort()
    return model


def _check_depth(model: ir.Model) -> None:
    """Protobuf's parser refuses graphs that are nested too deep; a model that comes without it must be refused here."""
    level, depth = [model.graph, *model.functions.values()], 0
    while level:
        if (depth := depth + 1) > _legality.MAX_DEPTH:
            raise InvalidModelError(f"graphs are nested more than {_legality.MAX_DEPTH} deep")
        attributes = [a for graph in level for node in graph for a in node.attributes.values() if not a.is_ref()]
        level = [a.value for a in attributes if a.type == ir.AttributeType.GRAPH]
        level += [graph for a in attributes if a.type == ir.AttributeType.GRAPHS for graph in a.value]


def _looks_like_text(data: memoryview) -> bool:
    head = bytes(data[:512])
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head) and b"\n" in head
