"""Removal of what no output depends on, by onnx_ir's own passes."""
from __future__ import annotations

from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from .context import GraphContext


def apply(context: GraphContext) -> bool:
    """Remove dead nodes and initializers, and functions that nothing uses, if there are any of the first two."""
    dead = any(not any(value.uses() or value.is_graph_output() for value in node.outputs) for node in context.nodes()) or any(
        not (value.uses() or value.is_graph_output() or value.is_graph_input()) for value in context.graph.initializers.values())
    return dead and trim(context)


def trim(context: GraphContext) -> bool:
    """The same, and optional inputs and outputs of nodes that are not there or not used."""
    modified = RemoveUnusedNodesPass()(context.model).modified
    return (bool(context.model.functions) and RemoveUnusedFunctionsPass()(context.model).modified) or modified


def finish(context: GraphContext) -> None:
    """Remove operator sets that nothing uses."""
    RemoveUnusedOpsetsPass()(context.model)
