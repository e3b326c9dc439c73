"""How each BatchNormalization came to where the fold report says it went."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import onnx_ir as ir

from ..passes.context import node_name
from .fold import FoldItem, FoldReport


def explanations(model: ir.Model, report: FoldReport) -> dict[str, str]:
    """By BatchNormalization: the kind of fold that took it, or the rules that could not and the conditions in the way.

    Args:
        model: the model before folding.
        report: what `infold.fold` said of it.
    """
    nodes = {node_name(node): node for node in ir.traversal.RecursiveGraphIterator(model.graph)}
    return {item.name: _story(item, nodes) for item in report.items}


def _story(item: FoldItem, nodes: dict[str, ir.Node]) -> str:
    if item.verdict != "folded" or item.into is None:
        return item.reason or ""
    node, targets = nodes.get(item.name), [nodes[name] for name in item.into.split(", ") if name in nodes]
    if node is None or not targets:
        return "merged into a new node"
    if node in targets:  # a layer without a name is called after its output, which was the BatchNormalization's
        return "backward: scales the output channels of the layer before it, shifts the bias"
    kinds = ", ".join(dict.fromkeys(target.op_type for target in targets))
    if any(target.op_type == "BatchNormalization" for target in targets):
        return "composed with the BatchNormalization it is chained to"
    if _reaches(node, targets, ir.Node.predecessors):
        return f"backward: scales the output channels of the {kinds} before it, shifts the bias"
    if _reaches(node, targets, ir.Node.successors):
        return f"forward: scales the input channels of the {kinds} behind it, its shift goes into the bias"
    return f"parallel branch: summed with the {kinds} beside it"


def _reaches(node: ir.Node, targets: list[ir.Node], step: Callable[[ir.Node], Iterable[ir.Node]]) -> bool:
    """Whether one of the targets can be reached by steps in this direction."""
    seen, waiting = {node}, deque([node])
    while waiting:
        new = set(step(waiting.popleft())) - seen
        if not new.isdisjoint(targets):
            return True
        seen |= new
        waiting.extend(new)
    return False
