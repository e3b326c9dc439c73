"""Types and shapes of all values, by ONNX's own inference."""
from __future__ import annotations

import logging

import onnx
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
    if believed and context.flat and _all_known(model):
        return False
    try:
        inferred = inference.infer_model(_without_weights(model, believed))
    except inference.Contradiction as error:
        logger.debug("shapes stay as declared: %s", error)
        return False
    return _refine_graph(model.graph, inferred.graph)


def believable(context: GraphContext) -> bool:
    """Whether declared dimensions may be believed: graph inputs are static, and no dimension of a computed value becomes data."""
    return all(value.shape is not None and value.shape.is_static() for value in context.graph.inputs) and not any(
        is_op(node, "Shape", "Size") and context.tensor(node.inputs[0]) is None for node in context.nodes())


def derived(context: GraphContext) -> dict[str, ir.Shape]:
    """The shapes that follow from those of the graph's inputs, whatever a model declares inside; none if it contradicts itself."""
    try:
        graph = inference.infer_model(_without_weights(context.model, believed=False)).graph
    except inference.Contradiction:
        return {}
    found = {info.name: ir.serde.deserialize_type_proto_for_shape(info.type) for info in (*graph.input, *graph.value_info)}
    return {name: shape for name, shape in found.items() if shape is not None}


def _all_known(model: ir.Model) -> bool:
    """Whether every value has a static shape and a type already: exporters write them beside the values."""
    return all(
        value.shape is not None and value.shape.is_static() and dtype(value) is not None
        for values in (model.graph.inputs, *(node.outputs for node in model.graph)) for value in values if value.name)


def dtype(value: ir.Value) -> ir.DataType | None:
    """The value's element type, if it is a tensor of a known one."""
    known = value.dtype if isinstance(value.type, ir.TensorType) else None
    return None if known == ir.DataType.UNDEFINED else known


def _without_weights(model: ir.Model, believed: bool) -> onnx.ModelProto:
    """The model for the inference: large initializers are inputs of their type and shape; unless shapes declared inside are
    `believed`, values there have only a type."""
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    for function in model.functions.values():
        ir.serde.serialize_function_into(proto.functions.add(), function)
    graph = proto.graph
    graph.name = "weightless"
    for value in model.graph.inputs:
        ir.serde.serialize_value_into(graph.input.add(), value)
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor.nbytes <= _LARGE:
            ir.serde.serialize_tensor_into(small := graph.initializer.add(), tensor)
            small.name = name
        elif not value.is_graph_input():
            graph.input.append(onnx.helper.make_tensor_value_info(name, int(tensor.dtype), tensor.shape.numpy()))
    for node in model.graph:
        ir.serde.serialize_node_into(graph.node.add(), node)
        for value in node.outputs:
            if value.name and value.type is not None and not value.is_graph_output():
                ir.serde.serialize_value_into(graph.value_info.add(), value)
    for value in model.graph.outputs:
        ir.serde.serialize_value_into(graph.output.add(), value)
    graphs = [] if believed else [graph]
    while graphs:
        current = graphs.pop()
        for info in current.value_info:
            _forget_shape(info.type)
        graphs += [attr.g for node in current.node for attr in node.attribute if attr.type == onnx.AttributeProto.GRAPH]
    return proto


def _forget_shape(kind: onnx.TypeProto) -> None:
    while (field := kind.WhichOneof("value")) in ("sequence_type", "optional_type"):
        kind = getattr(kind, field).elem_type
    if field is not None:
        getattr(kind, field).ClearField("shape")


def _refine_graph(graph: ir.Graph, inferred: onnx.GraphProto) -> bool:
    modified = False
    known = {info.name: info.type for info in (*inferred.value_info, *inferred.output)}
    for node, twin in zip(graph, inferred.node):
        for value in node.outputs:
            modified |= _refine(value, known.get(value.name))
        for attribute in twin.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH and not attribute.ref_attr_name:
                modified |= _refine_graph(node.attributes[attribute.name].value, attribute.g)
    return modified


def _refine(value: ir.Value, found: onnx.TypeProto | None) -> bool:
    shape = None if found is None else ir.serde.deserialize_type_proto_for_shape(found)
    if shape is None and value.shape is not None:
        shape = ir.Shape([None] * len(value.shape))  # not confirmed, but the rank is worth keeping
    kind = None if found is None else ir.serde.deserialize_type_proto_for_type(found)
    kind = value.type if kind is None else kind
    modified = shape != value.shape or kind != value.type
    value.shape, value.type = shape, kind
    return modified
