"""Backward folding: per-channel affine maps go into the weights of the linear layer before them."""
from __future__ import annotations

import onnx_ir as ir

from . import affine, linear
from .affine import Affine
from .context import GraphContext, is_op, node_name


def apply(context: GraphContext) -> bool:
    """Fold the BatchNormalizations and per-channel Mul, Add, Sub, Div, Neg behind each linear layer into its weights.

    A chain of them is composed in float64 first, so the weights are rounded once.
    """
    modified = False
    for node in context.nodes():
        if node.graph is None:
            continue
        layer = linear.read(context, node)
        if isinstance(layer, str):
            _keep_readers(context, node, layer)
        elif layer is not None:
            modified |= _fold(context, layer)
    return modified


def _fold(context: GraphContext, layer: linear.Linear) -> bool:
    chain = _chain(context, layer)
    if not any(_worth_folding(layer, node) for node, _ in chain):
        return False
    while chain:
        last, total = chain[-1]
        change = layer.absorb(context, total)
        if not isinstance(change, str):
            context.supersede(last.outputs[0], change())
            nodes = [node for node, _ in chain]
            for node in nodes:
                if is_op(node, "BatchNormalization"):
                    context.folded(node, layer.node)
            context.remove(*reversed(nodes))
            return True
        if is_op(last, "BatchNormalization"):
            context.kept(last, change)
        chain.pop()
    return False


def _chain(context: GraphContext, layer: linear.Linear) -> list[tuple[ir.Node, Affine]]:
    """The affine nodes that follow the layer, each with the map from the layer's output to its own."""
    chain, total, value = [], Affine.identity(layer.channels.count), layer.node.outputs[0]
    while (node := context.sole_user(value)) is not None and node.graph is layer.node.graph:
        step = affine.step(context, node, value, layer.channels)
        if isinstance(step, str):
            context.kept(node, step)
        if not isinstance(step, Affine):
            return chain
        total, value = total.then(step), node.outputs[0]
        chain.append((node, total))
    if len(value.uses()) + value.is_graph_output() > 1:
        _keep_readers(context, value.producer(), f"the output of '{node_name(value.producer())}' has other readers")
    return chain


def _worth_folding(layer: linear.Linear, node: ir.Node) -> bool:
    """MatMul has no bias input: a lone Add after it already is the bias."""
    follows = layer.node.outputs[0] in node.inputs
    return not (isinstance(layer, linear.MatMul) and follows and is_op(node, "Add"))


def _keep_readers(context: GraphContext, node: ir.Node, reason: str) -> None:
    for reader in node.outputs[0].consumers():
        if is_op(reader, "BatchNormalization"):
            context.kept(reader, reason)
