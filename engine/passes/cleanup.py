"""Removal of what no output depends on, by onnx_ir's own passes."""
from __future__ import annotations

from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from .context import GraphContext


def apply(context: GraphContext) -> bool:
    """Remove dead nodes and initializers, optional inputs and outputs of nodes that are not there or not used, if any node has an
    output that nothing reads or an input that is not there; and functions that nothing uses."""
    loose = any(None in node.inputs or not all(value.uses() or value.is_graph_output() for value in node.outputs)
                for node in context.nodes())
    modified = loose and RemoveUnusedNodesPass()(context.model).modified
    return (bool(context.model.functions) and RemoveUnusedFunctionsPass()(context.model).modified) or modified


def finish(context: GraphContext) -> None:
    """Remove initializers and operator sets that nothing uses."""
    for value in list(context.graph.initializers.data.values()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del context.graph.initializers[value.name]
    if len(context.model.opset_imports) > 1:
        RemoveUnusedOpsetsPass()(context.model)
