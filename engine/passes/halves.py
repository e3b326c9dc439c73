"""float16 and bfloat16 models for infold's own session: computed in float32, converted where data enters and leaves.

Every kernel is float32's, and so is every intermediate result: nothing overflows or rounds on the way but where the model itself
casts.
"""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .. import inference
from .context import all_nodes

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
TYPE_ATTRIBUTES = ("dtype", "output_dtype", "softmax_precision", "stash_type")
BITS = "BitCast"  # looks at the numbers' bits, so that their type matters


def widen(model: ir.Model) -> None:
    """Rewrite the model in place. One that shows the bits of its numbers, or takes or gives sequences of halves, stays as it is."""
    nodes = [node for root in (model.graph, *model.functions.values()) for node in all_nodes(root)]
    graphs = {id(graph): graph for graph in [model.graph, *(node.graph for node in nodes)]}.values()
    if not any(map(_brings_halves, nodes)) and not any(map(_holds_halves, graphs)):
        return
    ends = [*model.graph.inputs, *model.graph.outputs]
    if any(node.op_type == BITS for node in nodes) or any(_half(v.type) and not isinstance(v.type, ir.TensorType) for v in ends):
        return
    inputs = {value: value.dtype for value in model.graph.inputs if value.dtype in HALVES}
    outputs = {index: value.dtype for index, value in enumerate(model.graph.outputs)
               if value.dtype in HALVES and value not in inputs}
    _require_one_type(model)
    for node in nodes:
        _widen_attributes(node)
        if _rounds(node):
            _round(node)
    for graph in graphs:
        _widen_values(graph)
    for value, dtype in inputs.items():
        value.type = ir.TensorType(dtype)
        wide = _cast(value, ir.DataType.FLOAT, f"{value.name}/float32")
        for user, index in tuple(value.uses()):
            user.replace_input_with(index, wide.outputs[0])
        wide.replace_input_with(0, value)
        _insert_first(model.graph, wide)
    for index, dtype in outputs.items():
        value = model.graph.outputs[index]
        narrow = _cast(value, dtype, value.name)
        value.name = f"{value.name}/float32"
        model.graph.outputs[index] = narrow.outputs[0]
        model.graph.append(narrow)


def _require_one_type(model: ir.Model) -> None:
    """Refuse nodes that mix halves with other types, which nobody would notice afterwards."""
    known: dict[ir.Value, np.dtype] = {}

    def dtype(value: ir.Value | None) -> np.dtype | None:
        kind = None if value is None else value.dtype if value.const_value is None else value.const_value.dtype
        return known.get(value) if kind is None else None if kind == ir.DataType.STRING else kind.numpy()

    for node in all_nodes(model.graph):
        opset = node.version or model.opset_imports.get(node.domain, 1)
        found = inference.require_one_type(node, opset, [dtype(value) for value in node.inputs])
        for value, word in zip(node.outputs, inference.result_variables(node.op_type, opset, node.domain, len(node.outputs))):
            if word in found:
                known[value] = found[word]


def _brings_halves(node: ir.Node) -> bool:
    """Whether an attribute may make results of the node halves, whatever its inputs are."""
    for name, attr in node.attributes.data.items():
        if attr.is_ref() or attr.type in (ir.AttributeType.TENSORS, ir.AttributeType.SPARSE_TENSOR, ir.AttributeType.TYPE_PROTO):
            return True
        if attr.type == ir.AttributeType.TENSOR and attr.value.dtype in HALVES:
            return True
        if name in ("to", *TYPE_ATTRIBUTES) and attr.type == ir.AttributeType.INT and attr.value in HALVES:
            return True
    return False


def _holds_halves(graph: ir.Graph | ir.Function) -> bool:
    """Whether values that no node makes, or any that are declared so, are halves."""
    constants = graph.initializers.data.values() if isinstance(graph, ir.Graph) else ()
    values = (*graph.inputs, *graph.outputs, *(value for node in graph for value in node.outputs))
    return any(value.const_value is not None and value.const_value.dtype in HALVES for value in constants) or any(
        _half(value.type) for value in values)


def _half(kind: ir.TypeProtocol | None) -> bool:
    return kind is not None and kind.dtype in HALVES


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in tuple(node.attributes.items()):
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in HALVES:
            node.attributes[name] = ir.AttrTensor(name, _wide(attribute.value))
        elif name in TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT and attribute.value in HALVES:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))


def _round(node: ir.Node) -> None:
    """A Cast to a half: the numbers are rounded, and float32 again."""
    output = node.outputs[0]
    wide = _cast(output, ir.DataType.FLOAT, f"{output.name}/float32")
    graph = node.graph
    graph.insert_after(node, wide)
    for user, index in tuple(output.uses()):
        if user is not wide:
            user.replace_input_with(index, wide.outputs[0])
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = wide.outputs[0]
    wide.outputs[0].name, output.name = output.name, f"{output.name}/rounded"


def _widen_values(graph: ir.Graph) -> None:
    # new type objects: a clone shares its own with the model it was made from
    for value in graph.initializers.values() if hasattr(graph, "initializers") else ():
        if value.const_value is not None and value.const_value.dtype in HALVES:
            value.const_value = _wide(value.const_value)
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
        if _half(value.type) and not (value.producer() is not None and _rounds(value.producer())):
            value.type = ir.TensorType(ir.DataType.FLOAT)


def _rounds(node: ir.Node) -> bool:
    return node.op_type == "Cast" and not node.domain and node.attributes["to"].as_int() in HALVES


def _wide(tensor: ir.TensorProtocol) -> ir.Tensor:
    return ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    result = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
    return ir.node("Cast", [value], {"to": int(dtype)}, name=f"{name}/Cast", outputs=[result])


def _insert_first(graph: ir.Graph, node: ir.Node) -> None:
    first = next(iter(graph), None)
    if first is None:
        graph.append(node)
    else:
        graph.insert_before(first, node)
