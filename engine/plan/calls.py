"""Calls of model-local functions that no kernel serves as a whole: their bodies are planned in their place."""
from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from ..errors import UnsupportedError
from ..ops import base


def is_call(model: ir.Model, node: ir.Node) -> bool:
    """Whether the node calls a function of the model."""
    return node.op_identifier() in model.functions


def without_kernel_inlined(model: ir.Model, nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """The nodes, with the body in the place of every call of a function that `engine/ops` does not know."""
    for node in nodes:
        if is_call(model, node) and base.find(node) is None:
            yield from without_kernel_inlined(model, body(model, node))
        else:
            yield node


def body(model: ir.Model, call: ir.Node) -> list[ir.Node]:
    """The nodes of the called function, in order, with the call's attributes, reading and making values of its names.

    Values inside get names of their own, each node the version of the operator set that the function imports. Calls of
    further functions stay calls.

    Raises:
        UnsupportedError: a function that takes graphs as attributes.
    """
    function = model.functions[call.op_identifier()]
    ends = {value.name for value in (*call.inputs, *call.outputs) if value is not None}
    inputs = {value.name: ir.Value(name=value.name) for value in call.inputs if value is not None}
    copy = ir.Node(call.domain, call.op_type, [value and inputs[value.name] for value in call.inputs],
                   call.attributes.values(), overload=call.overload, name=call.name,
                   outputs=[ir.Value(name=value.name) for value in call.outputs])
    graph = ir.Graph(list(inputs.values()), copy.outputs, nodes=[copy], opset_imports=dict(function.opset_imports))
    alone = ir.Model(graph, ir_version=model.ir_version, functions=[each.clone() for each in model.functions.values()])
    try:
        InlinePass(lambda each: each.identifier() == function.identifier())(alone)
    except (ValueError, ir.passes.PassError) as error:
        raise UnsupportedError(f"node {call.name!r} ({call.op_type}): its function cannot be inlined: {error}") from error
    nodes = list(graph)
    for node in nodes:
        node.version = function.opset_imports.get(node.domain)
        node.name = f"{call.name}/{node.name or node.op_type}"
        for value in node.outputs:
            if value.name and value.name not in ends:
                value.name = f"{call.outputs[0].name}/{value.name}"
    return nodes
