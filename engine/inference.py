"""ONNX's own inference of types and shapes, made safe for models that contradict themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from .errors import InvalidModelError


class Contradiction(Exception):
    """The node's inputs and attributes do not fit its operator."""


def infer_node(
    node: onnx.NodeProto, opset: int, types: Mapping[str, onnx.TypeProto], data: Mapping[str, onnx.TensorProto]
) -> dict[str, onnx.TypeProto] | None:
    """Types of the node's outputs, as far as ONNX can tell; None if it does not know the operator.

    Args:
        types: the type of each input that is present; data: contents of those that may decide a shape.
    Raises:
        Contradiction: with ONNX's reason.
    """
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None
    first = types.get(node.input[0]) if node.input else None
    if node.op_type == "LayerNormalization" and first is not None:
        _require_axis(node, len(first.tensor_type.shape.dim))
    _require_equation(node)
    try:
        return onnx.shape_inference.infer_node_outputs(
            schema, node, dict(types), dict(data), opset_imports=[onnx.helper.make_opsetid(node.domain, opset)]
        )
    except (InferenceError, ValidationError, ValueError) as error:
        raise Contradiction(str(error).strip()) from error


@cache
def type_variables(op_type: str, opset: int, domain: str, count: int) -> list[str | None]:
    """The type variable of each of `count` inputs of an operator, or its one type, as tensor(int64); None where it is free of the
    others' types."""
    return _variables(op_type, opset, domain, count, "inputs")


@cache
def result_variables(op_type: str, opset: int, domain: str, count: int) -> list[str | None]:
    """The same of its outputs."""
    return _variables(op_type, opset, domain, count, "outputs")


def require_one_type(node: ir.Node, opset: int, dtypes: Sequence[np.dtype | None]) -> dict[str, np.dtype]:
    """The type that each type variable of the operator stands for; dtypes: of the inputs, as far as they are known.

    Raises:
        InvalidModelError: operands that the operator wants of one type and that are not.
    """
    found: dict[str, tuple[str, np.dtype]] = {}
    for word, dtype, value in zip(type_variables(node.op_type, opset, node.domain, len(dtypes)), dtypes, node.inputs):
        if dtype is not None and word is not None:
            if "(" in word and word != f"tensor({ir.DataType.from_numpy(dtype).name.lower()})":
                raise InvalidModelError(f"node {node.name!r} ({node.op_type}): {value.name!r} is {dtype}, which must be {word}")
            name, first = found.setdefault(word, (value.name, dtype))
            if first != dtype:
                raise InvalidModelError(f"node {node.name!r} ({node.op_type}): {name!r} is {first} and {value.name!r} is"
                                        f" {dtype}, which must be of one type")
    return {word: dtype for word, (_, dtype) in found.items()}


def _variables(op_type: str, opset: int, domain: str, count: int, which: str) -> list[str | None]:
    try:
        formal = list(getattr(onnx.defs.get_schema(op_type, opset, domain), which))
    except onnx.defs.SchemaError:
        return []
    if formal and formal[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic:
        formal += [formal[-1]] * (count - len(formal))
    return [each.type_str if each.is_homogeneous else None for each in formal]


def infer_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the types of its values. Raises Contradiction."""
    graphs = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            graphs.extend(graph for a in node.attribute for graph in [*a.graphs, *([a.g] if a.HasField("g") else [])])
            _require_equation(node)
            if node.op_type == "LayerNormalization":  # see `_require_axis`: the ranks are not known yet
                del node.output[1:]
            elif node.op_type == "Range" and len(node.input) == 3:
                # Its numbers would be written out, however many. Unique's result is 1-D and of its first input's type as well.
                node.op_type = "Unique"
                del node.input[1:]
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (InferenceError, ValidationError, ValueError) as error:
        raise Contradiction(str(error).strip()) from error


def _require_equation(node: onnx.NodeProto) -> None:
    """onnx (1.23) reads some that are none for ever."""
    equation = next((a.s for a in node.attribute if a.name == "equation"), b"")
    if node.op_type == "Einsum" and not re.fullmatch(rb"(\.\.\.|[A-Za-z, ]|->)*", equation):
        raise Contradiction(f"the equation {equation!r}")


def _require_axis(node: onnx.NodeProto, rank: int) -> None:
    """onnx (1.23) writes outside the shape of the mean for an axis that does not exist."""
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
    if not -rank <= axis < rank:
        raise Contradiction(f"axis {axis} is not one of {rank} dimensions")
