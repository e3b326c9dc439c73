"""Removal of what no output depends on, by onnx_ir's own passes."""
from __future__ import annotations

from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from .context import GraphContext


def apply(context: GraphContext) -> bool:
    """Remove dead nodes and initializers, and functions and operator sets that nothing uses."""
    model = context.model
    modified = RemoveUnusedNodesPass()(model).modified
    modified |= RemoveUnusedFunctionsPass()(model).modified
    return RemoveUnusedOpsetsPass()(model).modified or modified
