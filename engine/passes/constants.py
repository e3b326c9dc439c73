"""Typed constant folding: what is the same in every run becomes an initializer.

Covers expressions that only look dynamic: `CastLike(0, x)` needs only the type of x, `Shape(x)` only its known
dimensions. torch's un-optimised exports compute every convolution bias as `Expand(CastLike(0, x), Shape(w))`.
"""
from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir

from .. import inference, trivial
from ..errors import Error
from .context import GraphContext, attribute, is_op, literal, subgraphs
from .shapes import dtype

logger = logging.getLogger(__name__)

_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
           "Dropout"}
_DATA_SIZED = {"NonZero", "Unique", "Compress"}  # the size follows from the data, and is at most the input's
_TYPE_INFERENCE_LIMIT = 1024  # elements of a constant that shape inference may look at


def lift(context: GraphContext) -> bool:
    """Replace Constant nodes by initializers: the part of constant folding that needs no types and shapes."""
    return _replace(context, _literal)


def apply(context: GraphContext) -> bool:
    """Replace every node whose outputs are constant by initializers, in one sweep in graph order."""
    def evaluate(node: ir.Node) -> list[ir.TensorProtocol] | None:
        arrays = _evaluate(context, node)
        return _literal(node) if arrays is None else [ir.Tensor(array) for array in arrays]

    return _replace(context, evaluate)


def _literal(node: ir.Node) -> list[ir.TensorProtocol] | None:
    tensor = literal(node)
    return None if tensor is None else [ir.Tensor(tensor.numpy())]  # a tensor's name would be the original's too


def _replace(context: GraphContext, evaluate: Callable[[ir.Node], list[ir.TensorProtocol] | None]) -> bool:
    modified = False
    for node in context.nodes():
        if node.domain != "" or any(output.is_graph_output() for output in node.outputs):
            continue
        tensors = evaluate(node)
        if tensors is None:
            continue
        if is_op(node, "BatchNormalization"):  # weights that are standardised
            context.folded(node, *(use.node for use in node.outputs[0].uses()))
        for output, tensor in zip(node.outputs, tensors):
            _become_initializer(context, output, tensor)
        context.remove(node)
        modified = True
    return modified


def _become_initializer(context: GraphContext, output: ir.Value, tensor: ir.TensorProtocol) -> None:
    if not output.uses():
        return
    in_main_graph = output.producer().graph is context.graph  # there its name is free as soon as the node goes
    value = context.initializer(output.name if in_main_graph else context.unique_name(output.name), tensor)
    output.replace_all_uses_with(value)


def _evaluate(context: GraphContext, node: ir.Node) -> list[np.ndarray] | None:
    """The node's outputs if they are constant, of known type and reasonable size."""
    if is_op(node, "Shape", "Size"):
        return _shape(node)
    if is_op(node, "CastLike"):
        return _cast_like(context, node)
    if is_op(node, "Gather", "Slice"):
        known = _known_dimensions(context, node)
        if known is not None:
            return known
    for value in node.inputs:
        if value is not None and context.tensor(value) is None:
            return None
    if node.op_type in _RANDOM or (context.quantized and node.op_type == "DequantizeLinear") or subgraphs(node):
        return None
    return _compute(context, node, [context.array(value) for value in node.inputs])


def _shape(node: ir.Node) -> list[np.ndarray] | None:
    shape = node.inputs[0].shape
    if shape is None:
        return None
    dims = shape.dims
    if is_op(node, "Shape"):
        dims = dims[attribute(node, "start", 0):attribute(node, "end", len(dims))]
    if not all(isinstance(dim, int) for dim in dims):
        return None
    return [np.array(dims if is_op(node, "Shape") else math.prod(dims), np.int64)]


def _cast_like(context: GraphContext, node: ir.Node) -> list[np.ndarray] | None:
    array, target = context.array(node.inputs[0]), dtype(node.inputs[1])
    if array is None or target is None:
        return None
    return _compute(context, node, [array, np.zeros(1, target.numpy())])


def _known_dimensions(context: GraphContext, node: ir.Node) -> list[np.ndarray] | None:
    """Gather or Slice of `Shape(x)` where x has the wanted dimensions known, though not all of them."""
    producer = node.inputs[0].producer()
    if not is_op(producer, "Shape") or producer.inputs[0].shape is None:
        return None
    dims = producer.inputs[0].shape.dims
    dims = dims[attribute(producer, "start", 0):attribute(producer, "end", len(dims))]
    inputs = [context.array(value) for value in node.inputs[1:]]
    if any(array is None and value is not None for array, value in zip(inputs, node.inputs[1:])):
        return None
    places = _compute(context, node, [np.arange(len(dims)), *inputs])
    if places is None or not all(isinstance(dims[place], int) for place in places[0].flat):
        return None
    return [np.array([dims[place] for place in places[0].flat], np.int64).reshape(places[0].shape)]


def _compute(context: GraphContext, node: ir.Node, inputs: list[np.ndarray | None]) -> list[np.ndarray] | None:
    """Run one node on constants; None where its result would be too large, or of a type other than ONNX prescribes."""
    if node.op_type in trivial.OPERATORS and not node.domain and all(array is not None for array in inputs):
        array = trivial.compute(node.op_type, {name: attr.value for name, attr in node.attributes.items()}, inputs)
        if array is not None:
            return [array]
    types = _infer(context, node, inputs)
    if types is None:
        return None
    growth = sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in types if shape is not None)
    growth -= sum(array.nbytes for array in inputs if array is not None)
    if growth > context.size_limit:
        return None
    if is_op(node, "Expand"):
        outputs = [np.broadcast_to(inputs[0], types[0][1])]
    elif is_op(node, "ConstantOfShape"):
        fill = attribute(node, "value")
        outputs = [np.broadcast_to(np.float32(0) if fill is None else fill.numpy().reshape(()), types[0][1])]
    else:
        outputs = _reference(context, node, inputs)
    if outputs is None or any(array.dtype != kind or (shape is not None and array.shape != shape)
                              for array, (kind, shape) in zip(outputs, types)):
        return None
    return outputs


def _infer(context: GraphContext, node: ir.Node,
           inputs: list[np.ndarray | None]) -> list[tuple[np.dtype, tuple[int, ...] | None]] | None:
    """NumPy type and shape of each output of a node on constants; None where ONNX's inference says too little."""
    opset = context.opset(node)
    types, data = {}, {}
    for value, array in zip(node.inputs, inputs):
        if array is not None:
            kind = ir.DataType.from_numpy(array.dtype)
            types[value.name] = onnx.helper.make_tensor_type_proto(int(kind), array.shape)
            if array.size <= _TYPE_INFERENCE_LIMIT and array.dtype.kind in "iuf":
                data[value.name] = onnx.numpy_helper.from_array(array)
    try:
        found = inference.infer_node(ir.serde.serialize_node(node), opset, types, data)
    except inference.Contradiction as error:
        logger.debug("not folding %s: %s", node.name, error)
        return None
    if found is None:
        return None
    result = []
    for output in node.outputs:
        tensor = found[output.name].tensor_type if output.name in found else None
        if tensor is None or tensor.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
            return None
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        known = tensor.HasField("shape") and None not in dims
        if not known and node.op_type not in _DATA_SIZED:
            return None
        result.append((ir.DataType(tensor.elem_type).numpy(), tuple(dims) if known else None))
    return result


def _reference(context: GraphContext, node: ir.Node, inputs: list[np.ndarray | None]) -> list[np.ndarray] | None:
    from ..reference import NodeRunner

    try:
        return [np.asarray(array) for array in NodeRunner(node, {"": context.opset(node)}).run(inputs)]
    except Error as error:  # the reference has gaps; the node then stays as it is
        logger.debug("not folding %s: %s", node.name, error)
        return None
