"""Matched subgraphs as model-local functions: one node for the planner, the original nodes for any other runtime."""
from __future__ import annotations

import onnx_ir as ir

from .bodies import body
from .context import GraphContext, is_op
from .found import Found
from .shapes import dtype

DOMAIN = "infold"
_LEAST_IR_VERSION = 8  # the first with model-local functions
_OVERLOAD_IR_VERSION = 10


def outline(found: Found, name: str, attributes: dict[str, float]) -> ir.Value | None:
    """Replace what was found, computed of x and scalars, by a call of the function `infold::name`.

    The first use of a name defines the function: by the nodes found, or, where the call has attributes, by the ONNX
    operator of that name with these attributes. Returns the call's result; None, and changes nothing, where the
    function is defined for another data type.
    """
    context, x = found.context, found.x
    function = context.model.functions.get((DOMAIN, name, ""))
    if function is None:
        _define(context, _wrapper(context, name, attributes) if attributes else _body(context, name, x, found.nodes))
    elif _constants_type(function) not in (None, dtype(x)):
        return None
    return found.replace(ir.node(name, [x], attributes or None, domain=DOMAIN))


def call(context: GraphContext, name: str, inputs: list[ir.Value | None], attributes: dict[str, int | float],
         overload: str = "") -> ir.Node:
    """A call of one of `bodies.BODIES`, which becomes a function of the model."""
    if (DOMAIN, name, overload) not in context.model.functions:
        _define(context, body(name, overload, context.model.opset_imports[""]))
    return ir.node(name, inputs, attributes, domain=DOMAIN, overload=overload)


def _define(context: GraphContext, function: ir.Function) -> None:
    model = context.model
    model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = 1
    model.ir_version = max(model.ir_version, _OVERLOAD_IR_VERSION if function.overload else _LEAST_IR_VERSION)


def _body(context: GraphContext, name: str, x: ir.Value, nodes: list[ir.Node]) -> ir.Function:
    parameter = ir.Value(name="x")
    values, copies = {x: parameter}, []
    for node in nodes:
        for value in node.inputs:
            if value is not None and value not in values:
                constant = ir.node("Constant", [], {"value": ir.Tensor(context.array(value))})
                constant.outputs[0].name = value.name
                values[value] = constant.outputs[0]
                copies.append(constant)
        copy = ir.Node(node.domain, node.op_type, [value and values[value] for value in node.inputs],
                       node.attributes.values(), name=node.name)
        for old, new in zip(node.outputs, copy.outputs):
            new.name, values[old] = old.name, new
        copies.append(copy)
    return _function(context, name, parameter, copies, ())


def _wrapper(context: GraphContext, name: str, attributes: dict[str, float]) -> ir.Function:
    parameter = ir.Value(name="x")
    references = [ir.RefAttr(key, key, ir.AttributeType.FLOAT) for key in attributes]
    node = ir.Node("", name, [parameter], references, name=name)
    node.outputs[0].name = "y"
    formal = [ir.Attr(key, ir.AttributeType.UNDEFINED, None) for key in attributes]
    return _function(context, name, parameter, [node], formal)


def _function(context: GraphContext, name: str, parameter: ir.Value, nodes: list[ir.Node], formal) -> ir.Function:
    graph = ir.Graph([parameter], [nodes[-1].outputs[0]], nodes=nodes,
                     opset_imports={"": context.model.opset_imports[""]})
    return ir.Function(DOMAIN, name, graph=graph, attributes=formal)


def _constants_type(function: ir.Function) -> ir.DataType | None:
    for node in function:
        if is_op(node, "Constant"):
            return node.attributes["value"].as_tensor().dtype
    return None
