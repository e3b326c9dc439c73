"""An ONNX graph in the making: nodes named after the Torch7 modules they come from, shapes inferred as it grows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from infold.errors import ShapeError
from infold.importers._graph import Builder, registrar
from infold.importers.torch7_module import Module
from infold.inference import Contradiction

OPSET = 22  # the first in which shape inference drops pooling windows that would start in the padding, as Torch does
_IR_VERSION = 10
_MAX_NODES = 10_000
_MAX_MODULES = 10_000  # applications: a module used twice counts twice
_MAX_NESTING = 100
_SPARE_WEIGHTS = 1 << 24  # elements of weights allowed on top of 8 for each byte of the file

Nested = ir.Value | list  # what flows between modules: a tensor, or a table of such
CONVERTERS: dict[str, Callable[[Site], Nested]] = {}
converts = registrar(CONVERTERS)  # of Torch classes, by their names


class Graph(Builder):
    """Collects nodes and weights; `apply` converts a module and all below it."""

    def __init__(self, file_bytes: int) -> None:
        super().__init__(OPSET, _IR_VERSION)
        self._constants: dict[tuple, ir.Value] = {}
        self._budget = 8 * file_bytes + _SPARE_WEIGHTS
        self._applied = 0
        self._open: list[int] = []

    def apply(self, module: Module, x: Nested) -> Nested:
        """Convert a module that is given `x`.

        Raises:
            UnsupportedError: no converter for this class, or not for this form of it.
            InvalidModelError, ShapeError: fields or shapes that contradict each other; a module inside itself.
        """
        if (converter := CONVERTERS.get(module.name)) is None:
            raise module.unsupported("there is no conversion of this class to ONNX")
        if id(module.source) in self._open:
            raise module.invalid("it contains itself")
        self._applied += 1
        if len(self._open) == _MAX_NESTING or self._applied > _MAX_MODULES:
            raise module.invalid(f"more than {_MAX_NESTING} levels or {_MAX_MODULES} modules")
        self._open.append(id(module.source))
        try:
            return converter(Site(self, module, x))
        finally:
            self._open.pop()

    def input(self, name: str, shape: Sequence[int | str]) -> ir.Value:
        return ir.Value(name=self.names.free(name), type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))

    def weight(self, module: Module, field: str, array: np.ndarray) -> ir.Value:
        """Return a float32 initializer with the values of `array`; modules that share a weight share it."""
        key = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if key not in self._constants:
            self._budget -= array.size
            if self._budget < 0:
                raise module.invalid("the weights are many times larger than the file: tensors overlap")
            with np.errstate(over="ignore"):
                self._constants[key] = self.initializer(self.unique(module.below(field)), np.array(array, np.float32))
        return self._constants[key]

    def constant(self, array: np.ndarray, name: str) -> ir.Value:
        key = (array.tobytes(), array.shape, array.dtype.str)
        if key not in self._constants:
            self._constants[key] = self.initializer(self.unique(name), array)
        return self._constants[key]

    def unique(self, name: str, suffix: str = "") -> str:
        return self.names.free(f"{name}/{suffix}" if name in self.names and suffix else name)

    def finish(self, inputs: list[ir.Value], outputs: Nested, root: Module) -> ir.Model:
        """Finish: tables among the outputs become outputs one after the other."""
        flat = leaves(outputs)
        if not flat:
            raise root.unsupported("it has no output")
        finished: list[ir.Value] = []
        for index, value in enumerate(flat):
            if value.producer() is None or value in finished:
                value = Site(self, root, value).add("Identity", value)
            value.name = self.unique("output" if len(flat) == 1 else f"output_{index + 1}")
            finished.append(value)
        return self.model("torch7", inputs, finished)


class Site(Module):
    """A module being converted: its fields, what it is given, and the means to add nodes named after it."""

    def __init__(self, graph: Graph, module: Module, given: Nested) -> None:
        super().__init__(module.source, module.path)
        self.graph, self.given = graph, given

    def apply(self, module: Module, x: Nested) -> Nested:
        """What a module below this one makes of `x`; errors as of `Graph.apply`."""
        return self.graph.apply(module, x)

    def tensor(self, *ranks: int) -> ir.Value:
        """What the module is given, which must be one tensor, of one of these ranks if any are named."""
        x = tensor(self, self.given)
        if ranks and len(x.shape) not in ranks:
            raise ShapeError(
                f"{self}: an input of shape {x.shape} has {len(x.shape)} dimensions, "
                f"{' or '.join(map(str, ranks))} expected (the first is the batch)"
            )
        return x

    def table(self, x: Nested) -> list:
        """`x`, which must be a table with something in it."""
        if not isinstance(x, list) or not x:
            raise self.invalid("it needs a table of tensors")
        return x

    def tensors(self, x: Nested) -> list[ir.Value]:
        return [tensor(self, item) for item in self.table(x)]

    def shape(self, value: ir.Value) -> list[int | None]:
        """The shape of a tensor; None for a dimension that is not known yet."""
        return [dim if isinstance(dim, int) else None for dim in value.shape.dims]

    def check_dim(self, x: ir.Value, axis: int, expected: int) -> None:
        if (found := self.shape(x)[axis]) not in (None, expected):
            raise ShapeError(f"{self}: dimension {axis} of its input {x.shape} must be {expected}, not {found}")

    def axis(self, field: str, x: ir.Value, *default: int) -> int:
        """The axis of a 1-based dimension; negative ones count from the end, nInputDims leaves out the batch."""
        rank, dimension = len(x.shape), self.integer(field, *default)
        if dimension < 0:
            dimension += rank + 1
        elif (inside := self.integer("nInputDims", None)) is not None and rank == inside + 1:
            dimension += 1
        if not 1 <= dimension <= rank:
            raise ShapeError(f"{self}: {field} {self.fields.get(field)} of an input of shape {x.shape}")
        return dimension - 1

    def weight(self, field: str, array: np.ndarray) -> ir.Value:
        """As `Graph.weight`."""
        return self.graph.weight(self, field, array)

    def scalar(self, value: float) -> ir.Value:
        return self.graph.constant(np.array(value, np.float32), f"scalar_{value:g}")

    def integers(self, *values: int) -> ir.Value:
        return self.graph.constant(np.array(values, np.int64), "integers_" + "_".join(map(str, values)))

    def floats(self, *values: float) -> ir.Value:
        return self.graph.constant(np.array(values, np.float32), "floats_" + "_".join(f"{value:g}" for value in values))

    def index(self, value: int) -> ir.Value:
        return self.graph.constant(np.array(value, np.int64), f"index_{value}")

    def add(self, op: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
        """Append a node and return its output, with the inferred shape. None stands for an optional input."""
        if len(self.graph.nodes) == _MAX_NODES:
            raise self.unsupported(f"the network becomes more than {_MAX_NODES} nodes")
        name = self.graph.unique(self.below(self.name.rpartition(".")[2]), op)
        try:
            [output] = self.graph.append(op, inputs, attributes, name, [name])
        except Contradiction as error:
            shapes = ", ".join(str(value.shape) for value in inputs if value is not None)
            raise ShapeError(f"{self}: {op} of shapes {shapes}: {str(error).splitlines()[-1]}") from None
        if output.shape is None:
            raise self.unsupported("the rank of its result depends on data")
        if any(isinstance(dim, int) and dim <= 0 for dim in output.shape):
            dims = [dim if isinstance(dim, int) else dim.value for dim in output.shape]
            raise ShapeError(f"{self}: an input of shape {inputs[0].shape} is too small, the result would have shape {dims}")
        return output

    def concat(self, values: list[ir.Value], axis: int) -> ir.Value:
        return values[0] if len(values) == 1 else self.add("Concat", *values, axis=axis)


def tensor(module: Module, x: Nested) -> ir.Value:
    """Check that a module is given, or makes, one tensor."""
    if isinstance(x, list):
        raise module.invalid(f"it needs a tensor and gets a table of {len(x)}")
    return x


def static(shape: Sequence[int | None]) -> int | None:
    """The number of elements of a shape, None if a dimension is not known."""
    return None if None in shape else math.prod(shape)  # type: ignore[arg-type]


def leaves(value: Nested) -> list[ir.Value]:
    """The tensors of a table, and of those in it, one after the other."""
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]
