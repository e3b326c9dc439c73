"""Removal of what no output depends on, by onnx_ir's own passes."""
from __future__ import annotations

from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from .context import GraphContext


def apply(context: GraphContext) -> bool:
    """Remove dead nodes and initializers, and functions that nothing uses."""
    modified = RemoveUnusedNodesPass()(context.model).modified
    return (bool(context.model.functions) and RemoveUnusedFunctionsPass()(context.model).modified) or modified


def finish(context: GraphContext) -> None:
    """Remove operator sets that nothing uses."""
    RemoveUnusedOpsetsPass()(context.model)
