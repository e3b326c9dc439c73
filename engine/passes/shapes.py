"""Types and shapes of all values, by ONNX's own inference."""
from __future__ import annotations

import copy

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from .context import GraphContext


def apply(context: GraphContext) -> bool:
    """Infer the type and shape of every value; contradictions in the model's own annotations are left as they are."""
    for graph in context.model.graphs():
        for node in graph:
            for value in node.outputs:
                value.type = copy.copy(value.type)  # clones share type objects, and the inference writes to them
    return ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(context.model).modified


def dtype(value: ir.Value) -> ir.DataType | None:
    """The value's element type, if it is a tensor of a known one."""
    known = value.dtype if isinstance(value.type, ir.TensorType) else None
    return None if known == ir.DataType.UNDEFINED else known
