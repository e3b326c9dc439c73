"""A whole model in float64: the yardstick that float32 results are measured against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from infold.errors import InvalidInputError, InvalidModelError
from infold.reference.evaluator import NodeRunner, inline

_NARROW = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
# Attributes that name a data type: Cast.to, EyeLike.dtype, HannWindow.output_datatype, DequantizeLinear.output_dtype.
_TYPE_ATTRIBUTES = {"to", "dtype", "output_datatype", "output_dtype"}


class Float64Model:
    """An ONNX model with every float32, float16 and bfloat16 tensor widened to float64.

    Widened are inputs, initializers, tensors in attributes, and the targets of casts; also in subgraphs and functions.
    Weights are widened when a run needs them and dropped after their last use, as are intermediates.

    Args:
        model: a legal model; not modified.
    Raises:
        UnsupportedError: an operator has no reference implementation; names the node.
    """

    def __init__(self, model: ir.Model):
        model = inline(model)
        self.inputs = [value.name for value in model.graph.inputs if value.name not in model.graph.initializers]
        self.outputs = [value.name for value in model.graph.outputs]
        self._optional = {value.name for value in model.graph.inputs} & set(model.graph.initializers)
        self._weights = {name: value.const_value for name, value in model.graph.initializers.items()}
        self.nodes = []
        for node in model.graph:
            proto = ir.to_proto(node)
            _widen_node(proto)
            self.nodes.append(NodeRunner(node, model.graph.opset_imports, proto))
        self.names = {*self.inputs, *self._weights, *(name for node in self.nodes for name in node.outputs if name)}

    def run(self, feeds: Mapping[str, np.ndarray], names: Iterable[str] | None = None) -> dict[str, object]:
        """Compute values of the main graph.

        Args:
            feeds: an array for every graph input that has no initializer.
            names: any value names of the main graph; default the graph's outputs.
        Returns:
            Each asked value by name: float64 where the model has a float type, otherwise as it is there.
        Raises:
            InvalidInputError: a feed is missing or unknown, or a name does not exist.
            ShapeError, InvalidModelError: a node failed; names it.
        """
        names = list(self.outputs if names is None else names)
        for what, wrong in (
            ("no such input", sorted(set(feeds) - {*self.inputs, *self._optional})),
            ("missing input", sorted(set(self.inputs) - set(feeds))),
            ("no such value", sorted(set(names) - self.names)),
        ):
            if wrong:
                raise InvalidInputError(f"{what}: {', '.join(map(repr, wrong))}")
        values = {name: widen(np.asarray(array)) for name, array in feeds.items()}
        last_use = self._last_uses(names)
        for step, node in enumerate(self.nodes):
            if step > last_use.get("", -1):
                break
            needed = {*node.inputs, *node.captured} - {""}
            for name in needed - values.keys():
                values[name] = self._weight(name)
            results = node.run(
                [values[name] if name else None for name in node.inputs], {name: values[name] for name in node.captured}
            )
            for name, result in zip(node.outputs, results):
                if name:
                    values[name] = widen(result)
            for name in needed.union(node.outputs):
                if last_use.get(name, -1) <= step:
                    values.pop(name, None)
        return {name: values[name] if name in values else self._weight(name) for name in names}

    def _weight(self, name: str) -> np.ndarray:
        if self._weights.get(name) is None:
            raise InvalidModelError(f"the value {name!r} is used but never produced")
        return widen(self._weights[name].numpy())

    def _last_uses(self, names: list[str]) -> dict[str, int]:
        """Return the step after which each value dies; "" stands for the last step that has to run at all."""
        asked, last = set(names), {"": -1}
        for step, node in enumerate(self.nodes):
            for name in (*node.inputs, *node.captured):
                last[name or " "] = step
            if asked.intersection(node.outputs):
                last[""] = step
        return last | dict.fromkeys(asked, len(self.nodes))


def run_float64(model: ir.Model, feeds: Mapping[str, np.ndarray], names: Iterable[str] | None = None) -> dict[str, object]:
    """Run a model once in float64; arguments, result and errors as for `Float64Model`."""
    return Float64Model(model).run(feeds, names)


def widen(value):
    """Return a float16, bfloat16 or float32 array (or each array of a sequence) as float64, anything else as it is."""
    if isinstance(value, list):
        return [widen(item) for item in value]
    narrow = isinstance(value, (np.ndarray, np.generic)) and (value.dtype.name in ("float16", "float32", "bfloat16"))
    return value.astype(np.float64) if narrow else value


def _widen_node(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            _widen_tensor(attribute.t)
        for tensor in attribute.tensors:
            _widen_tensor(tensor)
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for tensor in graph.initializer:
                _widen_tensor(tensor)
            for child in graph.node:
                _widen_node(child)
        if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _NARROW:
            attribute.i = onnx.TensorProto.DOUBLE


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
