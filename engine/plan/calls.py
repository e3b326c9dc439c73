"""Calls that no kernel serves as a whole, and whose bodies are planned in their place: of functions of the model, and of operators
that ONNX, or `ops.composed`, defines by others."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from ..errors import InvalidModelError, ShapeError, UnsupportedError
from ..ops import base, composed
from ..passes.context import node_name
from .facts import RANDOM, Fact
from .graph import opsets


def is_call(model: ir.Model, node: ir.Node) -> bool:
    """Whether the node calls a function of the model."""
    return node.op_identifier() in model.functions


def is_choice(node: ir.Node) -> bool:
    return node.op_type == "If" and node.domain in ("", "ai.onnx")


def without_kernel_inlined(model: ir.Model, nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """The nodes, with the body in the place of every call of a function that `engine/ops` does not know."""
    for node in nodes:
        if is_call(model, node) and base.find(node) is None:
            yield from without_kernel_inlined(model, body(model, node))
        else:
            yield node


def has_body(model: ir.Model, node: ir.Node) -> bool:
    """Whether other nodes may stand in the node's place."""
    return is_call(model, node) or composed.find(node) is not None or _schema(model, node) is not None


def _schema(model: ir.Model, node: ir.Node) -> onnx.defs.OpSchema | None:
    """ONNX's definition of the operator, if it is by a function."""
    if node.domain not in ("", "ai.onnx") or node.op_type in RANDOM:
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets(model, node)[""], "")
    except (KeyError, onnx.defs.SchemaError):
        return None
    return schema if schema.has_function or schema.has_context_dependent_function else None


def _definition(schema: onnx.defs.OpSchema, node: ir.Node, inputs: Sequence[Fact | None], opset: int) -> ir.Function:
    """The operator's function, of the latest version that the opset allows."""
    def latest(versions: list[int]) -> int:
        return max([v for v in versions if v <= opset], default=min(versions))

    if schema.has_function:
        proto = schema.get_function_with_opset_version(latest(schema.function_opset_versions))
    else:
        types = [onnx.TypeProto().SerializeToString() if f is None else onnx.helper.make_tensor_type_proto(
            onnx.helper.np_dtype_to_tensor_dtype(f.dtype), f.shape).SerializeToString() for f in inputs]
        proto = schema.get_context_dependent_function_with_opset_version(
            latest(schema.context_dependent_function_opset_versions), ir.to_proto(node).SerializeToString(), types)
    function = onnx.FunctionProto.FromString(proto)
    for name in list(function.attribute):  # of an operator: its own defaults
        if schema.attributes[name].default_value.name:
            function.attribute.remove(name)
            function.attribute_proto.append(schema.attributes[name].default_value)
    made = {*function.input, *(name for each in function.node for name in each.output)}
    while function.output[-1] not in made:  # an optional one, which this call leaves out
        function.output.pop()
    if not any(i.domain == "" for i in function.opset_import):
        function.opset_import.append(onnx.helper.make_opsetid("", opset))
    return ir.from_proto(function)


def body(model: ir.Model, call: ir.Node, inputs: Sequence[Fact | None] = ()) -> list[ir.Node]:
    """The nodes in the call's place. inputs: facts of the call's inputs.

    Raises:
        UnsupportedError: a function that takes graphs as attributes.
        NotNative: ops.composed leaves this form to the fallback.
    """
    opset = opsets(model, call).get("", 1)
    if is_call(model, call):
        nodes = _inlined(model, call, model.functions[call.op_identifier()])
    elif composed.find(call) is not None:
        nodes = composed.body(call, inputs, opset)
    else:
        nodes = _inlined(model, call, _definition(_schema(model, call), call, inputs, opset))
    return _named(call, nodes, {value.name for value in (*call.inputs, *call.outputs) if value is not None})


def branch(model: ir.Model, node: ir.Node, condition: np.ndarray) -> list[ir.Node]:
    """The nodes of the branch that the condition of an If chooses.

    Raises:
        InvalidModelError: there is no such branch, or it has too few outputs.
        ShapeError: the condition is not one value.
    """
    if condition.size != 1:
        raise ShapeError(f"node {node.name!r} (If): a condition of shape {list(condition.shape)}")
    which = "then_branch" if condition.item() else "else_branch"
    graph = node.attributes[which].value if which in node.attributes else None
    if not isinstance(graph, ir.Graph) or len(graph.outputs) < len(node.outputs) or graph.inputs:
        raise InvalidModelError(f"node {node.name!r} (If): no graph {which!r} of {len(node.outputs)} outputs and no inputs")
    try:
        graph = graph.clone(allow_outer_scope_values=True)
    except RuntimeError as error:
        raise InvalidModelError(f"node {node.name!r} (If): an output of {which!r} is not made there") from error
    nodes = [_constant(value) for value in graph.initializers.values()]
    nodes += graph
    graph.remove(list(graph))
    for each in nodes:
        if each.version is None and node.version is not None:
            each.version = opsets(model, node).get(each.domain)
    _named(node, nodes, set())
    made = {value for each in nodes for value in each.outputs}
    for value, output in zip(graph.outputs, node.outputs):
        if output.name and value not in made:  # made outside, or already another output
            nodes.append(ir.node("Identity", [value]))
            value = nodes[-1].outputs[0]
        value.name = output.name or value.name
        made.discard(value)
    return list(without_kernel_inlined(model, nodes))


def _constant(value: ir.Value) -> ir.Node:
    """A Constant node that gives an initializer."""
    made = ir.node("Constant", [], {"value": value.const_value})
    made.outputs[0].name = value.name
    value.replace_all_uses_with(made.outputs[0], replace_graph_outputs=True)
    return made


def _named(call: ir.Node, nodes: list[ir.Node], ends: set[str]) -> list[ir.Node]:
    """The nodes, with names that say whose place they take, and so have the values, but for those that are named in `ends`."""
    for i, node in enumerate(nodes):
        node.name = f"{node_name(call)}/{node.name or node.op_type}"
        for k, value in enumerate(node.outputs):
            if value.name not in ends and value.name != "":
                value.name = f"{call.outputs[0].name}/{value.name or f'{i}.{k}'}"
    return nodes


def _inlined(model: ir.Model, call: ir.Node, function: ir.Function) -> list[ir.Node]:
    """The nodes of the called function, in order, with the call's attributes, reading and making values of its names.

    Values inside get names of their own, each node the version of the operator set that the function imports. Calls of
    further functions stay calls.
    """
    inputs = {value.name: ir.Value(name=value.name) for value in call.inputs if value is not None}
    copy = ir.Node(call.domain, call.op_type, [value and inputs[value.name] for value in call.inputs],
                   call.attributes.values(), overload=call.overload, name=call.name,
                   outputs=[ir.Value(name=value.name) for value in call.outputs[:len(function.outputs)]])
    graph = ir.Graph(list(inputs.values()), copy.outputs, nodes=[copy], opset_imports=dict(function.opset_imports))
    functions = {**model.functions, function.identifier(): function}
    alone = ir.Model(graph, ir_version=model.ir_version, functions=[each.clone() for each in functions.values()])
    try:
        InlinePass(lambda each: each.identifier() == function.identifier())(alone)
    except (ValueError, ir.passes.PassError) as error:
        raise UnsupportedError(f"node {call.name!r} ({call.op_type}): its function cannot be inlined: {error}") from error
    nodes = list(graph)
    for node in nodes:
        node.version = function.opset_imports.get(node.domain)
    return nodes
