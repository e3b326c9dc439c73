"""Types and shapes of all values, by ONNX's own inference."""
from __future__ import annotations

import logging

import onnx_ir as ir

from .. import inference
from .context import GraphContext, is_op

logger = logging.getLogger(__name__)

_LARGE = 1024  # bytes; larger constants cannot be shape operands, and need not be serialised for the inference


def apply(context: GraphContext) -> bool:
    """Infer the type and shape of every value.

    Where a graph input has an open dimension, or dimensions become data, those that a model declares inside are not
    believed unless they follow from the inputs: many models had their inputs changed after export, and kept the old
    sizes inside.
    """
    model, believed = context.model, believable(context)
    if believed and _all_known(model):
        return False
    light = model.clone()
    if not believed:
        for graph in light.graphs():
            for node in graph:
                for value in node.outputs:
                    if not value.is_graph_output():
                        value.shape = None
    _set_weights_aside(light.graph)
    try:
        inferred = inference.infer_model(ir.to_proto(light))
    except inference.Contradiction as error:
        logger.debug("shapes stay as declared: %s", error)
        return False
    modified = False
    for graph, known in zip(model.graphs(), ir.from_proto(inferred).graphs()):
        for node, twin in zip(graph, known):
            for value, found in zip(node.outputs, twin.outputs):
                modified |= _refine(value, found)
    return modified


def believable(context: GraphContext) -> bool:
    """Whether declared dimensions may be believed: graph inputs are static, and no dimension of a computed value becomes data."""
    return all(value.shape is not None and value.shape.is_static() for value in context.graph.inputs) and not any(
        is_op(node, "Shape", "Size") and context.tensor(node.inputs[0]) is None for node in context.nodes())


def _all_known(model: ir.Model) -> bool:
    """Whether every value has a static shape and a type already: exporters write them beside the values."""
    graphs = list(model.graphs())
    return len(graphs) == 1 and all(
        value.shape is not None and value.shape.is_static() and dtype(value) is not None
        for values in (model.graph.inputs, *(node.outputs for node in model.graph)) for value in values if value.name)


def dtype(value: ir.Value) -> ir.DataType | None:
    """The value's element type, if it is a tensor of a known one."""
    known = value.dtype if isinstance(value.type, ir.TensorType) else None
    return None if known == ir.DataType.UNDEFINED else known


def _set_weights_aside(graph: ir.Graph) -> None:
    """Large initializers become inputs of their type and shape."""
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _LARGE:
            value.type, value.shape, value.const_value = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape), None
            del graph.initializers[name]
            if not value.is_graph_input():
                graph.inputs.append(value)


def _refine(value: ir.Value, found: ir.Value) -> bool:
    shape = found.shape
    if shape is None and value.shape is not None:
        shape = ir.Shape([None] * len(value.shape))  # not confirmed, but the rank is worth keeping
    kind = found.type if found.type is not None else value.type
    modified = shape != value.shape or kind != value.type
    value.shape, value.type = shape, kind
    return modified
