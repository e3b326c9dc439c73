"""The graph as the planner reads it: a range of nodes in order, who reads each value, and which values must leave."""
from __future__ import annotations

import onnx_ir as ir

from ..passes.context import subgraphs


def reads(node: ir.Node) -> list[str]:
    """Names of all values the node needs, subgraphs included, without repetition."""
    return list(dict.fromkeys([v.name for v in node.inputs if v is not None and v.name] + sorted(captured(node))))


def opsets(model: ir.Model, node: ir.Node) -> dict[str, int]:
    """The versions of the operator sets that the node belongs to: the model's, or those of the function it comes from."""
    return model.opset_imports if node.version is None else {**model.opset_imports, node.domain: node.version}


class GraphView:
    """Nodes [start, end) of a model's main graph. `outputs`: names of the values that must be handed out."""

    def __init__(self, model: ir.Model, nodes: list[ir.Node], outputs: list[str]) -> None:
        self.model, self.nodes, self.outputs = model, nodes, outputs
        self._readers: dict[str, list[ir.Node]] = {}
        for node in nodes:
            for name in reads(node):
                self._readers.setdefault(name, []).append(node)

    def opset(self, node: ir.Node) -> int:
        return node.version or self.model.opset_imports.get(node.domain, 1)

    def readers(self, name: str) -> list[ir.Node]:
        return self._readers.get(name, [])

    def only_reader(self, name: str) -> ir.Node | None:
        """The one node that reads the value, if nothing else does and it does not leave the graph."""
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 and name not in self.outputs else None


def captured(node: ir.Node) -> set[str]:
    """Return the names of the outer-scope values that a node's subgraphs read."""
    used: set[str] = set()
    for graph in subgraphs(node):
        own = {value.name for value in graph.inputs} | set(graph.initializers)
        inner = {value.name for value in graph.outputs}
        for child in graph:
            own.update(value.name for value in child.outputs)
            inner.update(value.name for value in child.inputs if value is not None)
            inner |= captured(child)
        used |= inner - own
    return used
