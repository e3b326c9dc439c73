"""The ONNX graph while a Caffe net is converted layer by layer, and the registry of layer types.

Caffe's blobs are overwritten in place. Here every write makes a new value: the last one has the blob's name, earlier ones are
called `blob@layer`. An input keeps its name, so a blob that overwrites an input has the longer one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import numpy as np
import onnx_ir as ir
from google.protobuf.message import Message

from infold.errors import Error, InvalidModelError, UnsupportedError
from infold.importers import caffe_net
from infold.importers._graph import Builder, registrar
from infold.inference import Contradiction

OPSET = 18
_IR_VERSION = 8
INT_MAX = 2**31 - 1
_MAX_AXES = 32  # Caffe's own limit

Values = ir.Value | list[ir.Value]
LAYERS: dict[str, Callable[[Site], Values]] = {}
layer = registrar(LAYERS)  # of functions that turn a layer of these types into nodes and return its tops' values

# Layers of training and testing that compute nothing a caller wants; their bottoms become outputs.
_DROPPED = {"Accuracy", "HDF5Output", "DetectionEvaluate"}


class Site:
    """One layer being converted: its message, bottoms and weights, and the means to add nodes."""

    def __init__(self, graph: Builder, message: Message, bottoms: list[ir.Value], blobs: Sequence[Message]) -> None:
        self.graph, self.layer, self.bottoms, self._blobs = graph, message, bottoms, blobs

    def fail(self, message: str, kind: type[Error] = InvalidModelError) -> NoReturn:
        """Raise an error that names the layer."""
        raise kind(f"layer {self.layer.name!r} ({self.layer.type}): {message}")

    @property
    def bottom(self) -> ir.Value:
        """The only bottom."""
        return self.take(1)[0]

    @property
    def first(self) -> ir.Value:
        """The first of one or more bottoms."""
        return self.bottoms[0] if self.bottoms else self.bottom

    def take(self, count: int) -> list[ir.Value]:
        """Return the bottoms, which must be `count`."""
        if len(self.bottoms) != count:
            self.fail(f"has {len(self.bottoms)} bottoms, needs {count}")
        return self.bottoms

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Return a value's shape, which must not depend on data."""
        if not value.shape.is_static():
            self.fail(f"needs a shape known beforehand, but {value.name!r} depends on the data: {value.shape}", UnsupportedError)
        return value.shape.numpy()

    def image(self, value: ir.Value) -> tuple[int, int, int, int]:
        """Return the shape of a value, which must be 4-D: (N, C, H, W)."""
        shape = self.shape(value)
        if len(shape) != 4:
            self.fail(f"needs a 4-D blob, {value.name!r} has the shape {list(shape)}")
        return shape

    def axis(self, axis: int, rank: int, *, end: bool = False) -> int:
        """Return an axis counted from the front; `end` allows the place after the last one."""
        limit = rank + end
        if not -limit <= axis < limit:
            self.fail(f"axis {axis} is out of range for a blob of rank {rank}")
        return axis + limit if axis < 0 else axis

    def constant(self, array: np.ndarray | Sequence[int] | float, suffix: str) -> ir.Value:
        """Add a constant called `layer/suffix`: integers as int64, everything else as float32."""
        array = np.asarray(array)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32, copy=False)
        name = self.graph.names.free(f"{self.layer.name}/{suffix}")
        return self.graph.initializer(name, np.ascontiguousarray(array).reshape(array.shape))

    def blob(self, index: int, shape: Sequence[int], role: str) -> np.ndarray:
        """Return a blob of weights as float32 of the given shape; legacy blobs may have further axes of length 1.

        Raises:
            InvalidModelError: no such blob, or one of another shape.
        """
        if index >= len(self._blobs):
            self.fail(f"needs the blob {index} ({role}) of shape {list(shape)}; the weights have {len(self._blobs)} blobs for it")
        found = caffe_net.array(self._blobs[index], f"layer {self.layer.name!r} ({self.layer.type}): blob {index} ({role})")
        if [dim for dim in found.shape if dim != 1] != [dim for dim in shape if dim != 1]:
            self.fail(f"blob {index} ({role}) has the shape {list(found.shape)}, needs {list(shape)}")
        return found.reshape(shape)

    def node(self, op: str, inputs: Sequence[ir.Value | None], suffix: str = "", **options: object) -> ir.Value:
        """Add a node with one output; as `nodes`."""
        return self.nodes(op, inputs, 1, suffix, **options)[0]

    def nodes(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        count: int,
        suffix: str = "",
        *,
        shape: Sequence[int | str] | None = None,
        **attributes: object,
    ) -> list[ir.Value]:
        """Add a node with `count` outputs; it is called after the layer, plus `/suffix`.

        shape: of every output, where it cannot be inferred from the inputs, or has names.
        """
        self._require_possible(op, shape or ())
        name = f"{self.layer.name}/{suffix}" if suffix else self.layer.name
        outputs = [f"{name}/{op}" + (f"_{index}" if index else "") for index in range(count)]
        try:
            values = self.graph.append(op, inputs, attributes, name, [*map(self.graph.names.free, outputs)])
        except Contradiction as error:
            self.fail(f"its {op} does not fit: {str(error).splitlines()[-1]}")
        for value in values:
            value.shape = value.shape if shape is None else ir.Shape(shape)
            self._require_possible(op, [dim if isinstance(dim, int) else dim.value for dim in value.shape])
        return values

    def _require_possible(self, op: str, shape: Sequence[int | str | None]) -> None:
        if not _is_possible([dim for dim in shape if isinstance(dim, int)]):
            self.fail(f"its {op} would make a blob of shape {list(shape)}")

    def reshape(self, value: ir.Value, shape: Sequence[int], suffix: str = "") -> ir.Value:
        """Add a Reshape; leading dimensions that stay are copied, so that they may change later."""
        before = self.shape(value)
        if math.prod(before) != math.prod(shape):
            self.fail(f"cannot turn the shape {list(before)} into {list(shape)}")
        same = next((i for i, (a, b) in enumerate(zip(before, shape)) if a != b), min(len(before), len(shape)))
        target = [0] * same + list(shape[same:])
        return self.node("Reshape", [value, self.constant(np.asarray(target, np.int64), f"{suffix or 'reshape'}/shape")], suffix)


def convert(net: Message, weights: Message | None, shapes: Mapping[str, Sequence[int]] | None = None) -> ir.Model:
    """Turn a NetParameter and a WeightsParameter into an ONNX model.

    Args:
        shapes: input shapes that replace those of the net.
    Raises:
        InvalidModelError, UnsupportedError: naming the layer.
    """
    layers = caffe_net.layers(net)
    declared = caffe_net.inputs(net, layers, shapes)
    computing = [item for item in layers if item.type not in caffe_net.DATA_TYPES | {"Input"} and not _is_dropped(item)]
    last = {top: item for item in computing for top in item.top}
    stored = caffe_net.weights(weights)
    graph, inputs = Builder(OPSET, _IR_VERSION, {*declared, *last}), []
    blobs: dict[str, ir.Value] = {}
    used: set[int] = set()
    for message in computing:
        bottoms = []
        for name in message.bottom:
            if name not in blobs and name in declared:
                blobs[name] = _input(name, declared[name])
                inputs.append(blobs[name])
            if name not in blobs:
                later = (
                    f"it is produced only later, by layer {last[name].name!r}: a cycle, or the wrong order"
                    if name in last
                    else "no layer produces it"
                )
                raise InvalidModelError(f"layer {message.name!r} ({message.type}) needs the blob {name!r}, but {later}")
            bottoms.append(blobs[name])
        used.update(map(id, bottoms))
        if message.type == "Silence":
            continue
        _convert_layer(Site(graph, message, bottoms, stored.get(message.name, ())), blobs, declared, last)
    outputs = [value for value in blobs.values() if id(value) not in used]
    if not outputs:
        raise InvalidModelError("the net computes nothing: no blob is left over as its output")
    position = {name: index for index, name in enumerate(declared)}
    inputs.sort(key=lambda value: position[value.name])
    return graph.model(net.name or "caffe", inputs, outputs)


def _convert_layer(site: Site, blobs: dict[str, ir.Value], declared: Mapping[str, object], last: Mapping[str, Message]) -> None:
    """Convert one layer and enter its tops into `blobs`."""
    message = site.layer
    if len({*message.top, ""}) != len(message.top) + 1:
        site.fail(f"its tops {list(message.top)} must have names, and different ones")
    if message.type not in LAYERS:
        site.fail(f"the Caffe importer does not know layers of type {message.type!r}", UnsupportedError)
    values = LAYERS[message.type](site)
    values = values if isinstance(values, list) else [values]
    if len(values) != len(message.top):
        site.fail(f"makes {len(values)} blobs, the net names {len(message.top)}: {', '.join(message.top)}")
    for top, value in zip(message.top, values):
        if (top in blobs or top in declared) and top not in message.bottom:
            site.fail(f"produces the blob {top!r}, which already exists and is not one of its bottoms")
        is_final = last[top] is message and top not in declared
        value.name = top if is_final else site.graph.names.free(f"{top}@{message.name}")
        blobs[top] = value


def _input(name: str, shape: tuple[int, ...] | None) -> ir.Value:
    if shape is None:
        raise InvalidModelError(f"the net gives no shape for its input {name!r}: pass input_shapes={{{name!r}: (...)}}")
    if not shape or not _is_possible(shape):
        raise InvalidModelError(f"the input {name!r} has the impossible shape {list(shape)}")
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


def _is_possible(shape: Sequence[int]) -> bool:
    """Whether Caffe could have a blob of this shape."""
    return len(shape) <= _MAX_AXES and all(dim >= 1 for dim in shape) and math.prod(shape) <= INT_MAX


def _is_dropped(message: Message) -> bool:
    return message.type in _DROPPED or message.type.endswith("Loss")
