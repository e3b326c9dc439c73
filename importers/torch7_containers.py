"""Torch7 containers: sequences, branches, tables, and the graphs of nngraph."""

from __future__ import annotations

import onnx_ir as ir

from infold.errors import ShapeError
from infold.importers.torch7_graph import Graph, Nested, converts
from infold.importers.torch7_module import Module
from infold.importers.torch7_reader import Object, Table

# Containers that at inference are their first (only) child.
WRAPPERS = (
    "nn.DataParallelTable",
    "nn.DataParallel",
    "nn.Decorator",
    "nn.DontCast",
    "nn.GPU",
    "nn.Inception",
    "nn.NaN",
    "nn.Profile",
    "nn.ModelParallel",
)
SEQUENCES = ("nn.Sequential", "nn.SpatialLPPooling", "inn.SpatialSameResponseNormalization")


@converts(*SEQUENCES)
def _sequential(graph: Graph, module: Module, x: Nested) -> Nested:
    for child in module.children():
        x = graph.apply(child, x)
    return x


@converts(*WRAPPERS)
def _wrapper(graph: Graph, module: Module, x: Nested) -> Nested:
    return graph.apply(inner(module), x)


def inner(module: Module) -> Module:
    """The module that a wrapper wraps; of replicas for several GPUs, the first."""
    if isinstance(module.fields.get("module"), Object):
        return module.child(module.fields["module"], 1)
    children = module.children()
    if not children:
        raise module.invalid("there is no module in it")
    return children[0]


@converts("nn.Concat")
def _concat(graph: Graph, module: Module, x: Nested) -> Nested:
    branches = graph.tensors(module, [graph.apply(child, x) for child in module.children()])
    return graph.concat(module, branches, axis(module, "dimension", branches[0]))


@converts("nn.DepthConcat")
def _depth_concat(graph: Graph, module: Module, x: Nested) -> Nested:
    """Concatenate branches of different height and width, each in the middle of the largest."""
    branches = graph.tensors(module, [graph.apply(child, x) for child in module.children()])
    along = axis(module, "dimension", branches[0])
    shapes = [graph.shape(branch) for branch in branches]
    rest = [position for position in range(1, len(shapes[0])) if position != along]
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise ShapeError(f"{module}: branches of different rank")
    if any(shape[position] is None for shape in shapes for position in rest):
        raise module.unsupported("branches of unknown size; give the input's shape")
    largest = [max(shape[position] for shape in shapes) for position in range(len(shapes[0])) if position in rest]
    padded = []
    for branch, shape in zip(branches, shapes):
        before, after = [0] * len(shape), [0] * len(shape)
        for position, size in zip(rest, largest):
            before[position] = (size - shape[position]) // 2
            after[position] = size - shape[position] - before[position]
        padded.append(graph.add(module, "Pad", branch, graph.integers(*before, *after)) if any(before + after) else branch)
    return graph.concat(module, padded, along)


@converts("nn.ConcatTable")
def _concat_table(graph: Graph, module: Module, x: Nested) -> Nested:
    return [graph.apply(child, x) for child in module.children()]


@converts("nn.ParallelTable")
def _parallel_table(graph: Graph, module: Module, x: Nested) -> Nested:
    children, x = module.children(), graph.table(module, x)
    if len(children) > len(x):
        raise module.invalid(f"{len(children)} modules for a table of {len(x)}")
    return [graph.apply(child, item) for child, item in zip(children, x)]


@converts("nn.Parallel")
def _parallel(graph: Graph, module: Module, x: Nested) -> Nested:
    x = graph.tensor(module, x)
    along, slices = axis(module, "inputDimension", x), []
    for position, child in enumerate(module.children()):
        part = graph.add(module, "Gather", x, graph.index(position), axis=along)
        slices.append(graph.tensor(child, graph.apply(child, part)))
    return graph.concat(module, graph.table(module, slices), axis(module, "outputDimension", slices[0]))


@converts("nn.JoinTable")
def _join(graph: Graph, module: Module, x: Nested) -> Nested:
    tensors = graph.tensors(module, x)
    return graph.concat(module, tensors, axis(module, "dimension", tensors[0]))


@converts("nn.SplitTable")
def _split(graph: Graph, module: Module, x: Nested) -> Nested:
    x = graph.tensor(module, x)
    along = axis(module, "dimension", x)
    if (count := graph.shape(x)[along]) is None:
        raise module.unsupported(f"the input's dimension {along} is not known; give the input's shape")
    return [graph.add(module, "Gather", x, graph.index(position), axis=along) for position in range(count)]


@converts("nn.SelectTable")
def _select(graph: Graph, module: Module, x: Nested) -> Nested:
    x, index = graph.table(module, x), module.integer("index")
    if not (1 <= index <= len(x) or -len(x) <= index <= -1):
        raise module.invalid(f"index {index} of a table of {len(x)}")
    return x[index if index < 0 else index - 1]


@converts("nn.NarrowTable")
def _narrow(graph: Graph, module: Module, x: Nested) -> Nested:
    x, first, count = graph.table(module, x), module.integer("offset", least=1), module.integer("length", 1, least=1)
    if first - 1 + count > len(x):
        raise module.invalid(f"entries {first} to {first + count - 1} of a table of {len(x)}")
    return x[first - 1 : first - 1 + count]


@converts("nn.FlattenTable")
def _flatten(graph: Graph, module: Module, x: Nested) -> Nested:
    return [leaf for item in x for leaf in _flatten(graph, module, item)] if isinstance(x, list) else [x]


@converts("nn.gModule")
def _gmodule(graph: Graph, module: Module, x: Nested) -> Nested:
    """Run an nngraph network: the nodes in forward order; a node's inputs are placed by its mapindex."""
    nodes = forward_nodes(module)
    inputs: dict[Table, dict[int, Nested]] = {}
    first = data(module, module.fields.get("innode"))
    count = module.integer("nInputs", len(first_children(module)))
    given = [x] if count <= 1 else graph.table(module, x)
    if count > 1 and len(given) != count:
        raise module.invalid(f"{count} inputs needed, {len(given)} given")
    inputs[first] = dict(enumerate(given, 1))
    for position, node in enumerate(nodes, 1):
        content = data(module, node)
        placed = inputs.get(content, {})
        if sorted(placed) != list(range(1, len(placed) + 1)) or not placed:
            raise module.invalid(f"node {position} lacks an input")
        values = [placed[index] for index in range(1, len(placed) + 1)]
        value: Nested = values[0] if len(values) == 1 else values
        routes: dict[Table, int] = {}
        if content is first and isinstance(content.get("mapindex"), Table) and content["mapindex"]:
            routes = content["mapindex"]  # the form of early nngraph: the input node hands its inputs out itself
        elif content.get("selectindex") is not None:
            index = content["selectindex"]
            if not isinstance(value, list) or not isinstance(index, int) or not 1 <= index <= len(value):
                raise module.invalid(f"node {position} selects entry {index!r} of {value!r}")
            value = value[index - 1]
        elif content.get("module") is not None:
            value = graph.apply(module.child(content["module"], position), value)
        for child in children(module, node):
            target = data(module, child)
            slots = target.get("mapindex")
            if target in routes:
                slot, handed = 1, values[_entry(module, routes[target], len(values))]
            else:
                slot, handed = slots.get(content) if isinstance(slots, Table) else None, value
            if not isinstance(slot, int) or slot in inputs.setdefault(target, {}):
                raise module.invalid(f"node {position} has no place of its own among the inputs of a node after it")
            inputs[target][slot] = handed
    last = data(module, module.fields.get("outnode"))
    placed = inputs.get(last, {})
    if not placed or sorted(placed) != list(range(1, len(placed) + 1)):
        raise module.invalid("the output node lacks an input")
    return placed[1] if len(placed) == 1 else [placed[index] for index in range(1, len(placed) + 1)]


def _entry(module: Module, index: object, count: int) -> int:
    if not isinstance(index, int) or not 1 <= index <= count:
        raise module.invalid(f"the input node hands out entry {index!r} of {count}")
    return index - 1


def forward_nodes(module: Module) -> list[Object]:
    nodes = module.fields.get("forwardnodes")
    if not isinstance(nodes, Table) or not nodes:
        raise module.invalid("it has no list of forward nodes")
    return nodes.sequence()


def first_children(module: Module) -> list[Object]:
    return children(module, module.fields.get("innode"))


def children(module: Module, node: object) -> list[Object]:
    listed = _fields(module, node).get("children")
    if not isinstance(listed, Table):
        raise module.invalid("a node of its graph has no list of children")
    return listed.sequence()


def data(module: Module, node: object) -> Table:
    """The data table of a node, which identifies it: topological sorting copies nodes, but shares their data."""
    content = _fields(module, node).get("data")
    if not isinstance(content, Table):
        raise module.invalid("a node of its graph has no data")
    return content


def _fields(module: Module, node: object) -> Table:
    if not isinstance(node, Object) or not isinstance(node.fields, Table):
        raise module.invalid(f"{node!r} is no node of a graph")
    return node.fields


def axis(module: Module, field: str, x: ir.Value, default: int | None = None) -> int:
    """The axis of a module's 1-based dimension; negative ones count from the end, nInputDims leaves out the batch."""
    rank = len(x.shape)
    dimension = module.integer(field) if default is None else module.integer(field, default)
    if dimension < 0:
        dimension += rank + 1
    elif (inside := module.integer("nInputDims", None)) is not None and rank == inside + 1:
        dimension += 1
    if not 1 <= dimension <= rank:
        raise ShapeError(f"{module}: {field} {module.fields.get(field)} of an input of shape {x.shape}")
    return dimension - 1
