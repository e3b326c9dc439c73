"""Removal of what no output depends on, by onnx_ir's own passes."""
from __future__ import annotations

from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from .context import GraphContext


def apply(context: GraphContext) -> bool:
    """Remove dead nodes, and functions that nothing uses, if there are any of the first."""
    dead = any(not any(value.uses() or value.is_graph_output() for value in node.outputs) for node in context.nodes())
    return dead and trim(context)


def trim(context: GraphContext) -> bool:
    """The same, dead initializers, and optional inputs and outputs of nodes that are not there or not used."""
    modified = RemoveUnusedNodesPass()(context.model).modified
    return (bool(context.model.functions) and RemoveUnusedFunctionsPass()(context.model).modified) or modified


def finish(context: GraphContext) -> None:
    """Remove initializers and operator sets that nothing uses."""
    for value in list(context.graph.initializers.values()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del context.graph.initializers[value.name]
    RemoveUnusedOpsetsPass()(context.model)
