"""What every pass needs of a graph: constants, single users, replacement that keeps names, and the fold verdicts."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ..report.fold import FoldItem, FoldReport

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


class Pass(Protocol):
    """A rewriting rule: changes the context's graph in place and tells whether it did."""

    def __call__(self, context: GraphContext) -> bool: ...


class GraphContext:
    """A model under rewriting.

    Holds for the whole graph, subgraphs included. New constants become initializers of the main graph. A value that
    replaces another takes over its name, so a name found both in the original and in the rewritten graph means the
    same tensor in both.

    Args:
        model: rewritten in place; its initializers must be listed as graph inputs only where they are overridable.
        size_limit: bytes a constant expression may add to the model when it is replaced by its value.
        quantized: whether quantized weights stay quantized, as runtimes with integer kernels expect them.
    """

    def __init__(self, model: ir.Model, size_limit: int, quantized: bool = True) -> None:
        self.model = model
        self.graph = model.graph
        self.size_limit = size_limit
        self.quantized = quantized
        nodes = all_nodes(self.graph)
        graphs = [self.graph, *(graph for node in nodes for graph in subgraphs(node))]
        self.flat = len(graphs) == 1  # no subgraphs, and no pass adds one
        self.visited: ir.Node | None = None
        self._names = {value.name for part in (*graphs, *nodes) for value in _values(part) if value.name}
        self._batchnorms = {node: FoldItem(node_name(node), "kept") for node in nodes if is_op(node, "BatchNormalization")}
        self._not_forward: dict[ir.Node, str] = {}

    # Reading

    def nodes(self) -> Iterator[ir.Node]:
        """All nodes, subgraphs included, as they were when the first is taken; the `graph` of a removed node is None."""
        for node in list(self.graph) if self.flat else all_nodes(self.graph):
            self.visited = node  # errors can name it
            yield node

    def opset(self, node: ir.Node) -> int:
        """The version of the node's operator set."""
        return node.version or self.model.opset_imports.get(node.domain, 1)

    def tensor(self, value: ir.Value | None) -> ir.TensorProtocol | None:
        """The value if it is the same in every run, else None."""
        if value is None or value.is_graph_input():  # an initializer that is also an input is only a default
            return None
        return value.const_value if value.is_initializer() else literal(value.producer())

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """`tensor` as a NumPy array, which may be a view of the model's memory: never write to it."""
        tensor = self.tensor(value)
        return None if tensor is None else tensor.numpy()

    def sole_user(self, value: ir.Value) -> ir.Node | None:
        """The node that reads the value, if it reads it once and nothing else does, graph outputs included."""
        uses = tuple(value.uses())
        return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None

    # Rewriting

    def unique_name(self, hint: str) -> str:
        """`hint`, or `hint_2`, `hint_3`, ... if it is taken."""
        name, count = hint, 1
        while name in self._names:
            count += 1
            name = f"{hint}_{count}"
        self._names.add(name)
        return name

    def constant(self, array: np.ndarray, hint: str) -> ir.Value:
        """A new initializer of the main graph."""
        return self.initializer(self.unique_name(hint), ir.Tensor(array))

    def initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """A new initializer of the main graph, of a name that is free."""
        value = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def set_constant(self, node: ir.Node, index: int, array: np.ndarray, hint: str) -> None:
        """Make input `index` of a node the given constant; the one it had keeps its name if nothing else reads it."""
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        old = node.inputs[index]
        if old is not None and old.is_initializer() and self.sole_user(old) is node and not old.is_graph_input():
            tensor = ir.Tensor(array, name=old.name)
            old.const_value, old.shape, old.type = tensor, tensor.shape, ir.TensorType(tensor.dtype)
        else:
            node.replace_input_with(index, self.constant(array, hint))

    def supersede(self, old: ir.Value, new: ir.Value) -> None:
        """Let `new` stand for `old`: its uses, its place among the graph outputs, its name, type and shape."""
        new.type = old.type if old.type is not None else new.type
        new.shape = old.shape if old.shape is not None else new.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name, old.name = old.name, None

    def put_behind(self, node: ir.Node, reader: ir.Node, hint: str) -> None:
        """Let what `reader` makes of the node's first output stand for that output, which gets a name of its own."""
        result = node.outputs[0]
        node.append(reader)
        self.supersede(result, reader.outputs[0])
        reader.replace_input_with(0, result)
        result.name = self.unique_name(f"{reader.outputs[0].name}_{hint}")

    def rename(self, value: ir.Value) -> None:
        """Give a new name to a value that is no longer the tensor of the original graph."""
        value.name = self.unique_name(f"{value.name}_folded")

    def remove(self, *nodes: ir.Node) -> None:
        """Remove nodes whose outputs nothing reads any more."""
        for node in nodes:
            node.graph.remove(node, safe=True)

    def carry_out(self, changes: list[Callable[[], object]], node: ir.Node, layers: Iterable[ir.Node]) -> None:
        """Make the changes by which the layers take the node's map; if it is a BatchNormalization, that is its verdict."""
        while changes:  # none is kept: each holds new weights, and may hold what holds it
            changes.pop(0)()
        if is_op(node, "BatchNormalization"):
            self.folded(node, *layers)

    # Verdicts

    def folded(self, batchnorm: ir.Node, *into: ir.Node) -> None:
        """Record that a BatchNormalization has become part of other nodes' weights."""
        item = self._batchnorms[batchnorm]
        item.verdict, item.into, item.reason = "folded", ", ".join(dict.fromkeys(map(node_name, into))), None

    def kept(self, batchnorm: ir.Node, reason: str) -> None:
        """Record why a BatchNormalization could not be folded (a later rule may still fold it)."""
        self._batchnorms[batchnorm].reason = reason

    def not_forward(self, batchnorm: ir.Node, reason: str) -> None:
        """Record why a BatchNormalization cannot go into what follows it either."""
        self._not_forward[batchnorm] = reason

    def replaced(self, batchnorms: list[ir.Node], by: ir.Node, name: str) -> None:
        """Record that one BatchNormalization stands for several, or, where the list is empty, for arithmetic."""
        if not batchnorms:
            self._batchnorms[by] = FoldItem(by.name or name, "kept")
            return
        *others, last = batchnorms
        self._batchnorms = {by if node is last else node: item for node, item in self._batchnorms.items()}
        for node in others:
            item = self._batchnorms[node]
            item.verdict, item.into, item.reason = "folded", self._batchnorms[by].name, None

    def report(self) -> FoldReport:
        """The verdicts, each with a reason where the BatchNormalization stayed."""
        present = {node for node in self.nodes() if is_op(node, "BatchNormalization")}
        for node, item in self._batchnorms.items():
            if node in present and item.reason is None:
                item.reason = no_rule(node.inputs[0])
            if node in present and node in self._not_forward:
                item.reason += f"; forward, {self._not_forward[node]}"
            elif node not in present and item.verdict == "kept":
                item.verdict, item.reason = "folded", "nothing reads its output"
        return FoldReport(list(self._batchnorms.values()), remaining=len(present))


def all_nodes(graph: ir.Graph | ir.Function) -> list[ir.Node]:
    """The nodes of a graph or function in order, each before those of its subgraphs."""
    nodes = []
    for node in graph:
        nodes.append(node)
        for inner in subgraphs(node):
            nodes += all_nodes(inner)
    return nodes


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """The graphs among a node's attributes."""
    found = []
    for attr in node.attributes.data.values():  # those of the mapping itself look each key up
        if attr.type in _GRAPHS and not attr.is_ref():
            found += [attr.value] if attr.type == ir.AttributeType.GRAPH else attr.value
    return found


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether the node is one of these operators of the ONNX domain."""
    return node is not None and node.op_type in op_types and node.domain == ""


def node_name(node: ir.Node) -> str:
    """The node's name, or that of its first output, which every graph has."""
    return node.name or node.outputs[0].name or node.op_type


def attribute(node: ir.Node, name: str, default=None):
    """An attribute's value, or the default where it is absent."""
    attr = node.attributes.data.get(name)
    return default if attr is None else attr.value


def literal(node: ir.Node | None) -> ir.TensorProtocol | None:
    """The tensor of a Constant node; None for other nodes, and for strings, sparse tensors and attribute references."""
    if not is_op(node, "Constant"):
        return None
    (attr,) = node.attributes.values()
    if attr.is_ref():
        return None
    match attr.name:
        case "value":
            return None if attr.as_tensor().dtype == ir.DataType.STRING else attr.as_tensor()
        case "value_float" | "value_floats":
            return ir.Tensor(np.array(attr.value, np.float32))
        case "value_int" | "value_ints":
            return ir.Tensor(np.array(attr.value, np.int64))
        case _:
            return None


def _values(part: ir.Graph | ir.Node) -> Iterable[ir.Value]:
    """What a node makes, or a graph holds beside what its nodes make."""
    return part.outputs if isinstance(part, ir.Node) else (*part.inputs, *part.initializers.data.values())


def no_rule(source: ir.Value) -> str:
    """Why a BatchNormalization of a value that no rule reaches stays."""
    producer = source.producer()
    if producer is None:
        return f"it normalises the graph input '{source.name}'"
    return f"it follows {producer.op_type} '{node_name(producer)}', not a convolution or matrix product"
