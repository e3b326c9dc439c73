"""Torch7 networks (`.t7`): the tree of nn modules becomes an ONNX graph, in evaluation mode."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import onnx_ir as ir

from infold.errors import Error, UnsupportedError
from infold.importers import torch7_layers, torch7_pointwise, torch7_shapes  # noqa: F401  these register converters
from infold.importers._files import mapped
from infold.importers.onnx import load as load_onnx
from infold.importers.torch7_containers import SEQUENCES, WRAPPERS, children, data, first_children, forward_nodes, inner
from infold.importers.torch7_graph import CONVERTERS, Graph
from infold.importers.torch7_module import Module
from infold.importers.torch7_reader import Object, Table, read

Dim = int | str | None
Shape = Sequence[Dim]

# What the first module with weights tells of the network's input: its field for the channels, and the shape.
_FIRST = {
    "Linear": ("weight", ("N", "C")),
    "LinearNoBias": ("weight", ("N", "C")),
    "BatchNormalization": ("running_mean", ("N", "C")),
    "SpatialBatchNormalization": ("running_mean", ("N", "C", "H", "W")),
    "TemporalConvolution": ("inputFrameSize", ("N", "T", "C")),
    "VolumetricBatchNormalization": ("running_mean", ("N", "C", "T", "H", "W")),
    "SpatialSubSampling": ("nInputPlane", ("N", "C", "H", "W")),
    **{
        f"Spatial{kind}": ("nInputPlane", ("N", "C", "H", "W"))
        for kind in ("Convolution", "ConvolutionMM", "DilatedConvolution", "FullConvolution", "ConvolutionMap")
    },
    **{
        f"Volumetric{kind}": ("nInputPlane", ("N", "C", "T", "H", "W"))
        for kind in ("Convolution", "ConvolutionMM", "DilatedConvolution", "FullConvolution")
    },
}
# Modules that change neither rank nor channels, so that the input's can be read from what follows.
_TRANSPARENT = re.compile(
    r".*(Pooling|Padding|ReLU|ELU|Tanh|Sigmoid|Dropout|Constant|Identity|Contiguous|Copy|LRN|Normalize|Normalization"
    r"|Square|Sqrt|Power|Abs|Log|Exp|nn\.Mul|Threshold|Affine|nn\.CAddTable)"
)
_MAX_VISITED = 10_000


def load(source: str | os.PathLike | bytes, *, shape: Shape | Sequence[Shape] | None = None) -> ir.Model:
    """Load a Torch7 network, written by `torch.save` in binary or ASCII form. Nothing in the file is executed.

    Args:
        source: path, or the file's bytes.
        shape: the input's shape, batch first, such as (1, 3, 224, 224); names and None are dynamic dimensions. For a
            network that takes a table, a list of shapes. Without it, batch, height and width are dynamic, and the
            channels are those of the first convolution or linear layer.
    Returns:
        A legal float32 model: inputs "input" (or "input_1", ...), outputs "output" (or "output_1", ...). Its nodes have
        the positions of their modules in the tree, such as "3.1.SpatialConvolution".
    Raises:
        InvalidModelError: not a Torch7 file, truncated, or modules that contradict themselves.
        ShapeError: shapes that do not fit each other.
        UnsupportedError: a module without a counterpart in ONNX; names its path. Or an input shape that must be given.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _convert(memoryview(source).cast("B"), shape)
    path = os.fspath(source)
    try:
        return _convert(mapped(path), shape)
    except Error as error:
        raise type(error)(f"{path}: {error}") from error.__cause__


def _convert(file: memoryview, shape: Shape | Sequence[Shape] | None) -> ir.Model:
    root, graph = Module(_network(read(file)), ""), Graph(len(file))
    shapes = _given(shape) if shape is not None else _deduced(root)
    single = not isinstance(shapes, list)
    names = ["input"] if single else [f"input_{index}" for index in range(1, len(shapes) + 1)]
    inputs = [graph.input(name, dims) for name, dims in zip(names, [shapes] if single else shapes)]
    return load_onnx(graph.finish(inputs, graph.apply(root, inputs[0] if single else list(inputs)), root))


def _network(value: object) -> Object:
    """The network of a file: the object itself, or the one module of a table, such as {model=..., epoch=...}."""
    if isinstance(value, Object):
        return value
    modules = (
        [entry for entry in value.values() if isinstance(entry, Object) and entry.name in CONVERTERS]
        if isinstance(value, Table)
        else []
    )
    if len(modules) != 1:
        raise UnsupportedError(f"the file holds {value!r} with {len(modules)} networks; it must hold one, alone or in a table")
    return modules[0]


def _given(shape: Shape | Sequence[Shape]) -> tuple | list[tuple]:
    """Check the caller's shape; unnamed dimensions get names."""
    if not isinstance(shape, Sequence) or isinstance(shape, str) or not shape:
        raise TypeError(f"shape must be a sequence of dimensions, or of shapes, not {shape!r}")
    if all(isinstance(dim, Sequence) and not isinstance(dim, str) for dim in shape):
        return [_dims(dims, f"_{index}") for index, dims in enumerate(shape, 1)]  # type: ignore[arg-type]
    return _dims(shape, "")  # type: ignore[arg-type]


def _dims(shape: Shape, suffix: str) -> tuple:
    for dim in shape:
        if not (dim is None or isinstance(dim, str) or (type(dim) is int and 0 < dim < 2**31)):
            raise TypeError(f"dimension {dim!r} of shape {tuple(shape)} must be a positive int, a name or None")
    return tuple((f"dim_{index}{suffix}" if index else "N") if dim is None else dim for index, dim in enumerate(shape))


def _deduced(root: Module) -> tuple | list[tuple]:
    found = _Search().expects(root)
    flat = found if isinstance(found, list) else [found]
    if not flat or not all(isinstance(shape, tuple) for shape in flat):
        raise UnsupportedError(
            "the shape of the input cannot be read from the network's first layers; give it: "
            "load(path, shape=(1, 3, 224, 224)), with None for dimensions that vary"
        )
    return (
        found
        if not isinstance(found, list)
        else [
            tuple(d if isinstance(d, int) else "N" if d == "N" else f"{d}_{index}" for d in shape)
            for index, shape in enumerate(flat, 1)
        ]
    )


class _Search:
    """Reads the input's shape from the first module that knows it."""

    def __init__(self) -> None:
        self.visited = 0

    def expects(self, module: Module) -> tuple | list | bool | None:
        """The shape a module needs; a list for a table; None: what the modules after it need; False: unknown."""
        self.visited += 1
        if self.visited > _MAX_VISITED or module.path.count(".") > 100:
            return False
        kind = module.name.rpartition(".")[2]
        if kind in _FIRST:
            return self._first(module, *_FIRST[kind])
        if module.name in SEQUENCES:
            return self._first_of(module.children(), False)
        if module.name in WRAPPERS:
            return self.expects(inner(module))
        if kind in ("Concat", "DepthConcat", "ConcatTable"):
            return self._first_of(module.children(), True)
        if kind == "ParallelTable":
            return [self.expects(child) for child in module.children()]
        if kind == "gModule":
            return self._graph(module)
        if _TRANSPARENT.fullmatch(module.name):
            return None
        return False

    def _first(self, module: Module, field: str, dims: tuple) -> tuple:
        if field == "weight":
            channels = module.array(field).shape[-1]
        elif field == "running_mean":
            channels = module.array(field).size
        else:
            channels = module.integer(field, least=1)
        return tuple(channels if dim == "C" else dim for dim in dims)

    def _first_of(self, modules: list[Module], branches: bool) -> tuple | list | bool | None:
        """In a sequence, the first that knows; of branches, any that knows."""
        unknown: bool | None = None
        for module in modules:
            found = self.expects(module)
            if isinstance(found, (tuple, list)):
                return found
            if found is False:
                if not branches:
                    return False
                unknown = False
        return unknown

    def _graph(self, module: Module) -> tuple | list | bool | None:
        starts, innode = first_children(module), module.fields.get("innode")
        count = module.integer("nInputs", len(starts))
        if count <= 1:
            return self._from_node(module, innode)
        position = data(module, innode).get("mapindex")
        if not isinstance(position, Table) or not position:
            position = {data(module, node): data(module, node).get("selectindex") for node in starts}
        found: list = [False] * count if count <= len(starts) else []
        for node in starts:
            index = position.get(data(module, node))
            if isinstance(index, int) and 1 <= index <= len(found):
                found[index - 1] = self._from_node(module, node)
        return found

    def _from_node(self, module: Module, start: object) -> tuple | list | bool | None:
        """Breadth first from a node: the first module that knows the shape of what it is given alone."""
        positions = {data(module, node): position for position, node in enumerate(forward_nodes(module), 1)}
        queue, seen = [start], set()
        while queue:
            node = queue.pop(0)
            content = data(module, node)
            if content in seen:
                continue
            seen.add(content)
            found = (
                self.expects(module.child(content["module"], positions.get(content, "")))
                if content.get("module") is not None
                else None
            )
            if isinstance(found, tuple):
                return found
            if found is None:
                queue.extend(children(module, node))
        return False
