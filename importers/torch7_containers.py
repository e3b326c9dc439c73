"""Torch7 containers: sequences, branches, tables, and the graphs of nngraph."""

from __future__ import annotations

from infold.errors import ShapeError
from infold.importers.torch7_graph import Nested, Site, converts, leaves, tensor
from infold.importers.torch7_module import Module
from infold.importers.torch7_reader import Object, Table

# Containers that at inference are their first (only) child.
WRAPPERS = ("nn.DataParallelTable", "nn.DataParallel", "nn.Decorator", "nn.DontCast", "nn.GPU", "nn.Inception", "nn.NaN",
            "nn.Profile", "nn.ModelParallel")
SEQUENCES = ("nn.Sequential", "nn.SpatialLPPooling", "inn.SpatialSameResponseNormalization")


@converts(*SEQUENCES)
def _sequential(site: Site) -> Nested:
    x = site.given
    for child in site.children():
        x = site.apply(child, x)
    return x


@converts(*WRAPPERS)
def _wrapper(site: Site) -> Nested:
    return site.apply(inner(site), site.given)


def inner(module: Module) -> Module:
    """The module that a wrapper wraps; of replicas for several GPUs, the first."""
    if isinstance(module.fields.get("module"), Object):
        return module.child(module.fields["module"], 1)
    children = module.children()
    if not children:
        raise module.invalid("there is no module in it")
    return children[0]


@converts("nn.ConcatTable")
def _concat_table(site: Site) -> Nested:
    return [site.apply(child, site.given) for child in site.children()]


@converts("nn.Concat", "nn.JoinTable")
def _join(site: Site) -> Nested:
    tensors = site.tensors(site.given if site.name == "nn.JoinTable" else _concat_table(site))
    return site.concat(tensors, site.axis("dimension", tensors[0]))


@converts("nn.DepthConcat")
def _depth_concat(site: Site) -> Nested:
    """Concatenate branches of different height and width, each in the middle of the largest."""
    branches = site.tensors(_concat_table(site))
    along = site.axis("dimension", branches[0])
    shapes = [site.shape(branch) for branch in branches]
    rest = [position for position in range(1, len(shapes[0])) if position != along]
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise ShapeError(f"{site}: branches of different rank")
    if any(shape[position] is None for shape in shapes for position in rest):
        raise site.unsupported("branches of unknown size; give the input's shape")
    largest = [max(shape[position] for shape in shapes) for position in range(len(shapes[0])) if position in rest]
    padded = []
    for branch, shape in zip(branches, shapes):
        before, after = [0] * len(shape), [0] * len(shape)
        for position, size in zip(rest, largest):
            before[position] = (size - shape[position]) // 2
            after[position] = size - shape[position] - before[position]
        padded.append(site.add("Pad", branch, site.integers(*before, *after)) if any(before + after) else branch)
    return site.concat(padded, along)


@converts("nn.ParallelTable")
def _parallel_table(site: Site) -> Nested:
    children, x = site.children(), site.table(site.given)
    if len(children) > len(x):
        raise site.invalid(f"{len(children)} modules for a table of {len(x)}")
    return [site.apply(child, item) for child, item in zip(children, x)]


@converts("nn.Parallel")
def _parallel(site: Site) -> Nested:
    x = site.tensor()
    along, slices = site.axis("inputDimension", x), []
    for position, child in enumerate(site.children()):
        part = site.add("Gather", x, site.index(position), axis=along)
        slices.append(tensor(child, site.apply(child, part)))
    return site.concat(site.table(slices), site.axis("outputDimension", slices[0]))


@converts("nn.SplitTable")
def _split(site: Site) -> Nested:
    x = site.tensor()
    along = site.axis("dimension", x)
    if (count := site.shape(x)[along]) is None:
        raise site.unsupported(f"the input's dimension {along} is not known; give the input's shape")
    return [site.add("Gather", x, site.index(position), axis=along) for position in range(count)]


@converts("nn.SelectTable")
def _select(site: Site) -> Nested:
    x, index = site.table(site.given), site.integer("index")
    if not (1 <= index <= len(x) or -len(x) <= index <= -1):
        raise site.invalid(f"index {index} of a table of {len(x)}")
    return x[index if index < 0 else index - 1]


@converts("nn.NarrowTable")
def _narrow(site: Site) -> Nested:
    x, first, count = site.table(site.given), site.integer("offset", least=1), site.integer("length", 1, least=1)
    if first - 1 + count > len(x):
        raise site.invalid(f"entries {first} to {first + count - 1} of a table of {len(x)}")
    return x[first - 1 : first - 1 + count]


@converts("nn.FlattenTable")
def _flatten(site: Site) -> Nested:
    return leaves(site.given)


@converts("nn.gModule")
def _gmodule(module: Site) -> Nested:
    """Run an nngraph network: the nodes in forward order; a node's inputs are placed by its mapindex."""
    nodes = forward_nodes(module)
    inputs: dict[Table, dict[int, Nested]] = {}
    first = data(module, module.fields.get("innode"))
    count = module.integer("nInputs", len(first_children(module)))
    given = [module.given] if count <= 1 else module.table(module.given)
    if count > 1 and len(given) != count:
        raise module.invalid(f"{count} inputs needed, {len(given)} given")
    inputs[first] = dict(enumerate(given, 1))
    for position, node in enumerate(nodes, 1):
        content = data(module, node)
        values = _in_order(module, inputs.get(content, {}), f"node {position}")
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
            value = module.apply(module.child(content["module"], position), value)
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
    values = _in_order(module, inputs.get(last, {}), "the output node")
    return values[0] if len(values) == 1 else values


def _in_order(module: Module, placed: dict[int, Nested], node: str) -> list[Nested]:
    """The inputs of a node, from the first."""
    if not placed or sorted(placed) != list(range(1, len(placed) + 1)):
        raise module.invalid(f"{node} lacks an input")
    return [placed[index] for index in sorted(placed)]


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
