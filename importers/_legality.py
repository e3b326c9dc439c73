"""Is a model legal ONNX? Checked on a copy without weights, so that it costs the same for every size of model."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import chain

import onnx

from infold.errors import InvalidModelError, UnsupportedError

MAX_RANK = 32  # dimensions of any tensor: NumPy's limit before its version 2
_FLAGS = {"allowzero", "antialias", "ceil_mode", "center_point_box", "count_include_pad", "exclude_outside", "is_test", "keepdims",
          "noop_with_empty_axes", "select_last_index", "training_mode", "transA", "transB"}
_LARGEST = 1 << 46  # elements: what a processor can address
_MOST_NODES = 1 << 17  # of a model whose functions are inlined
MAX_DEPTH = 32  # graphs inside one another: protobuf's parser reads a hundred messages deep, three for each
# Types of attributes that hold no graph, and no tensor that could be external.
_PLAIN = frozenset(
    onnx.AttributeProto.AttributeType.Value(name) for name in ("INT", "INTS", "FLOAT", "FLOATS", "STRING", "STRINGS")
)


class Walk:
    """A model's nodes (those of the main graph first), graphs and tensors (but the main graph's initializers), subgraphs and
    functions included, gone through once: protobuf makes objects anew for everybody who looks."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graphs = model, [model.graph]
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        waiting = [*model.functions, model.graph]
        while waiting:
            nodes = list(waiting.pop().node)
            self.nodes += nodes
            for attribute in [a for node in nodes for a in node.attribute if a.type not in _PLAIN]:
                if attribute.HasField("t"):
                    self.tensors.append(attribute.t)
                self.tensors += attribute.tensors
                inner = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
                self.tensors += [tensor for graph in inner for tensor in graph.initializer]
                self.graphs += inner
                waiting += inner


def drop_notes(walk: Walk) -> None:
    """Remove what exporters write about nodes (source lines, module names) and of weights (their types, once more) and nobody needs
    who only runs the model, in place."""
    graph = walk.model.graph
    weights = {tensor.name for tensor in graph.initializer}
    computed = [value for value in graph.value_info if value.name not in weights]
    if len(computed) < len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(computed)
    for item in [*walk.nodes, *graph.value_info]:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def normalise(walk: Walk) -> None:
    """Spell versions and domains in one way, in place, and refuse versions that are missing, impossible or too new.

    Models older than IR version 3 have no opset field: they are opset 1, and are given it here. Before IR version 4
    every initializer had to be an input as well, which passes need not keep up: the model becomes version 4, which
    means the same. The domain "ai.onnx" is the long name of "". Dimensions of -1 or "?" are open, each on its own.
    """
    model, nodes, graphs = walk.model, walk.nodes, walk.graphs
    if not model.HasField("graph"):
        raise InvalidModelError("not an ONNX model, or truncated: there is no graph in it")
    _check_text(model, nodes, graphs)
    if model.ir_version < 1:
        raise InvalidModelError("the model names no IR version")
    if model.ir_version > onnx.IR_VERSION:
        raise UnsupportedError(
            f"the model's IR version {model.ir_version} is newer than the {onnx.IR_VERSION} of the "
            f"installed onnx {onnx.__version__}: update the onnx package"
        )
    if model.ir_version < 3 and not model.opset_import:
        model.opset_import.add(domain="", version=1)
    if model.ir_version < 4:  # there every initializer is listed as an input, and constant nevertheless
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.ir_version = 4
    for item in [
        *model.opset_import,
        *(opset for function in model.functions for opset in function.opset_import),
        *nodes,
    ]:
        if item.domain == "ai.onnx":
            item.domain = ""
    for graph in graphs:
        for value in [*graph.input, *graph.output, *graph.value_info]:
            dims = value.type.tensor_type.shape.dim
            if len(dims) > MAX_RANK or any(dim.dim_value > _LARGEST for dim in dims):
                raise InvalidModelError(f"the value {value.name!r} is declared with a shape that no tensor can have")
            for dim in dims:
                if dim.dim_value < 0 or dim.dim_param == "?":
                    dim.Clear()
    versions = [opset.version for opset in model.opset_import if opset.domain == ""]
    if not versions and any(node.domain == "" for node in model.graph.node):
        raise InvalidModelError("the model imports no opset of ONNX, though its nodes use ONNX operators")
    for version in versions:
        if version < 1 or version != versions[0]:
            raise InvalidModelError(f"the model imports the ONNX opsets {versions}; there must be one, at least 1")
        if version > (newest := onnx.defs.onnx_opset_version()):
            raise UnsupportedError(
                f"the model needs ONNX opset {version}; the installed onnx {onnx.__version__} knows "
                f"opsets 1 to {newest}: update the onnx package"
            )


def _check_text(model: onnx.ModelProto, nodes: list[onnx.NodeProto], graphs: list[onnx.GraphProto]) -> None:
    """Protobuf gives a string that is not UTF-8 as bytes, or fails when it is read; either is refused here."""
    texts = [[opset.domain for opset in model.opset_import]]
    for function in model.functions:
        texts.append([function.name, function.domain, *function.input, *function.output, *function.attribute])
    for node in nodes:
        texts.append(
            [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
        )
    for graph in graphs:
        texts.append(
            [item.name for field in (graph.input, graph.output, graph.value_info, graph.initializer) for item in field]
        )
    if bytes in set(map(type, chain.from_iterable(texts))):
        wrong = next(text for text in chain.from_iterable(texts) if isinstance(text, bytes))
        raise InvalidModelError(f"a name in the model is not UTF-8: {wrong[:40]!r}")


def sort(model: onnx.ModelProto) -> bool:
    """Put the nodes of every graph into topological order, in place.

    Returns:
        Whether anything had to be moved.
    Raises:
        InvalidModelError: a cycle, a value with two producers, a value with none, or a function that calls itself.
    """
    moved = _sort(model.graph, [value.name for value in model.graph.input], set())
    for function in model.functions:
        moved |= _sort(function, function.input, set())
    _check_calls(model)
    return moved


def check(walk: Walk) -> None:
    """Run onnx.checker on a model whose tensor data is checked already; the model's tensors become empty.

    Shapes of the graph's inputs and outputs, and types of outputs, may be absent: onnxruntime and many exporters allow it.
    """
    model = walk.model
    for tensor in [*model.graph.initializer, *walk.tensors]:
        empty = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0])
        tensor.CopyFrom(empty)
    for value in model.graph.output:
        if value.type.WhichOneof("value") is None:  # as tools write that make outputs of tensors in between: inference will tell
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    for value in model.graph.input:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.elem_type:
            raise InvalidModelError(f"the input {value.name!r} has no data type")
    opset = max((item.version for item in model.opset_import if item.domain == ""), default=onnx.defs.onnx_opset_version())
    for node in walk.nodes:
        _check_node(node, opset)
    try:
        onnx.checker.check_model(model.SerializeToString())
    except ValueError as error:  # protobuf's limits: nesting deeper than its parser goes
        raise InvalidModelError(f"onnx.checker cannot read the model: {error}") from None
    except onnx.checker.ValidationError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        where = [line.removeprefix("==> Context: ") for line in lines if line.startswith("==> Context: ")]
        raise InvalidModelError("; ".join([lines[0], *where])) from None


def _check_node(node: onnx.NodeProto, opset: int) -> None:
    """What onnx.checker overlooks, and its inference or a kernel would fall over."""
    if node.domain or not onnx.defs.has(node.op_type, opset, "") or not (node.attribute or "" in node.input):
        return
    given = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Split" and given.get("num_outputs", len(node.output)) != len(node.output):
        raise InvalidModelError(f"{describe(node)} has {len(node.output)} outputs, and num_outputs {given['num_outputs']}")
    if node.op_type == "GatherND" and not 0 <= given.get("batch_dims", 0) <= MAX_RANK:
        raise InvalidModelError(f"{describe(node)}: batch_dims {given['batch_dims']} are not 0 to {MAX_RANK}")
    if wrong := [name for name in given.keys() & _FLAGS if given[name] not in (0, 1)]:
        raise InvalidModelError(f"{describe(node)}: {wrong[0]} is a flag, 0 or 1, not {given[wrong[0]]}")
    if "" in node.input:
        formal = onnx.defs.get_schema(node.op_type, opset).inputs
        variadic = formal and formal[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
        if variadic and "" in node.input[len(formal) - 1 :]:
            raise InvalidModelError(f"{describe(node)}: one of its inputs has no name")


def describe(node: onnx.NodeProto) -> str:
    """Name a node for a message: its name, or its first output, and its operator."""
    return f"node {node.name or next(iter(node.output), '')!r} ({node.op_type})"


def _sort(graph: onnx.GraphProto | onnx.FunctionProto, inputs: list[str], outer: set[str]) -> bool:
    is_graph = isinstance(graph, onnx.GraphProto)
    initializers = [tensor.name for tensor in graph.initializer] if is_graph else []
    for names, kind in ((inputs, "inputs"), (initializers, "initializers")):
        if len(set(names)) != len(names):
            double = next(name for name in names if names.count(name) > 1)
            raise InvalidModelError(f"graph {graph.name!r} has two {kind} called {double!r}")
    known = {*inputs, *initializers}
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in producer or name in known:
                raise InvalidModelError(
                    f"{describe(node)} produces the value {name!r}, which already exists (every value has one producer)"
                )
            producer[name] = index
    visible = outer | known | producer.keys()
    moved, needs = False, []
    for node in graph.node:
        names = set(filter(None, node.input))
        for subgraph in _subgraphs(node):
            moved |= _sort(subgraph, [value.name for value in subgraph.input], visible)
            names |= _free_names(subgraph)
        if missing := sorted(names - visible):
            raise InvalidModelError(
                f"{describe(node)} needs the value {missing[0]!r}, which is neither an input nor an "
                "initializer nor produced by a node"
            )
        needs.append({producer[name] for name in names if name in producer and name not in known})
    for output in graph.output:
        name = output.name if is_graph else output
        if name not in visible:
            raise InvalidModelError(f"graph {graph.name!r} has the output {name!r}, which no node produces")
    if all(all(need < index for need in wanted) for index, wanted in enumerate(needs)):
        return moved
    order = _topological(graph, needs)
    nodes = [graph.node[index] for index in order]
    del graph.node[:]
    graph.node.extend(nodes)
    return True


def _topological(graph: onnx.GraphProto | onnx.FunctionProto, needs: list[set[int]]) -> list[int]:
    """Return the node indices in topological order, the original order wherever it is free (Kahn's algorithm)."""
    waiting = [len(wanted) for wanted in needs]
    users: list[list[int]] = [[] for _ in needs]
    for index, wanted in enumerate(needs):
        for need in wanted:
            users[need].append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order = []
    while ready:
        order.append(index := heapq.heappop(ready))
        for user in users[index]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    if len(order) < len(needs):
        stuck = next(node for node, count in zip(graph.node, waiting) if count)
        raise InvalidModelError(f"the graph has a cycle: {describe(stuck)} depends on its own output")
    return order


def _free_names(graph: onnx.GraphProto) -> set[str]:
    """Return the outer-scope values a subgraph uses."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    used = {value.name for value in graph.output}
    for node in graph.node:
        used.update(filter(None, node.input))
        for subgraph in _subgraphs(node):
            used |= _free_names(subgraph)
    return used - own


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        kind = attribute.type
        if kind == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif kind not in _PLAIN:
            yield from attribute.graphs


def _nodes(root: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    graphs = [root]
    while graphs:
        for node in graphs.pop().node:
            yield node
            graphs.extend(_subgraphs(node))


def _check_calls(model: onnx.ModelProto) -> None:
    """No function calls itself, and bodies in the place of all calls stay few: twenty functions could make a million nodes."""
    called = {
        (function.domain, function.name): [(node.domain, node.op_type) for node in _nodes(function)]
        for function in model.functions
    }
    sizes: dict[tuple[str, str], int] = {}  # nodes of a function, and of all that it calls
    waiting, todo = set(), list(called)
    while todo:
        key = todo[-1]
        unknown = {inner for inner in called[key] if inner in called and inner not in sizes}
        if key in sizes or not unknown:
            sizes[key] = len(called[key]) + sum(sizes.get(inner, 0) for inner in called[key])
            waiting.discard(todo.pop())
            continue
        waiting.add(key)
        if unknown & waiting:
            domain, name = min(unknown & waiting)
            raise InvalidModelError(f"the function {domain}::{name} calls itself")
        todo.extend(unknown)
    total = sum(sizes.get((node.domain, node.op_type), 1) for node in _nodes(model.graph)) if sizes else 0
    if total > _MOST_NODES:
        raise UnsupportedError(f"the model has {total} nodes with those of its functions in the place of all calls; "
                               f"{_MOST_NODES} are supported")
