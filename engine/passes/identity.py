"""Removal of operators that return their input."""
from __future__ import annotations

import onnx_ir as ir

from .context import GraphContext, attribute, is_op
from .shapes import dtype

_PASSING = {"Identity", "Dropout", "Concat", "Sum", "Max", "Min", "Mean", "Cast", "CastLike"}  # operators that may


def apply(context: GraphContext) -> bool:
    """Remove Identity, Dropout in inference, casts to the type a value has, and reductions of a single operand."""
    modified = False
    for node in context.nodes():
        if _returns_its_input(context, node) and _bypass(node):
            modified = True
    return modified


def _returns_its_input(context: GraphContext, node: ir.Node) -> bool:
    if node.op_type not in _PASSING:
        return False
    if not node.inputs or node.inputs[0] is None or any(output.uses() for output in node.outputs[1:]):
        return False
    source = node.inputs[0]
    if is_op(node, "Identity"):
        return True
    if is_op(node, "Dropout"):
        return not any(output.is_graph_output() for output in node.outputs[1:]) and _is_inference(context, node)
    if is_op(node, "Concat", "Sum", "Max", "Min", "Mean"):
        return len(node.inputs) == 1
    if is_op(node, "Cast"):
        return dtype(source) is not None and dtype(source) == attribute(node, "to")
    if is_op(node, "CastLike"):
        return dtype(source) is not None and dtype(source) == dtype(node.inputs[1])
    return False


def _is_inference(context: GraphContext, dropout: ir.Node) -> bool:
    opset = context.opset(dropout)
    if opset < 7:
        return attribute(dropout, "is_test", 0) != 0
    if opset < 12 or len(dropout.inputs) < 3 or dropout.inputs[2] is None:
        return True
    training = context.array(dropout.inputs[2])
    return training is not None and not training.any()


def _bypass(node: ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    producer = source.producer()
    if result.is_graph_output():
        if producer is None or producer.graph is not node.graph or source.is_graph_output():
            return False  # a graph output needs a producer of its own
        result.replace_all_uses_with(source, replace_graph_outputs=True)
        source.name, result.name = result.name, None
    else:
        result.replace_all_uses_with(source)
    source.shape = source.shape if source.shape is not None else result.shape
    source.type = source.type if source.type is not None else result.type
    node.graph.remove(node, safe=True)
    return True
