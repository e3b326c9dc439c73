"""An ONNX graph in the making, for the importers of other formats: types and shapes are inferred as it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import onnx
import onnx_ir as ir

from infold.inference import infer_node

_SMALL = 1024  # elements of a constant whose contents may decide a shape


_Converter = TypeVar("_Converter", bound=Callable)


def registrar(table: dict[str, _Converter]) -> Callable[..., Callable[[_Converter], _Converter]]:
    """The decorator `@registrar(table)(*names)`, which enters a function in the table under these names."""

    def register(*names: str) -> Callable[[_Converter], _Converter]:
        def enter(function: _Converter) -> _Converter:
            table.update(dict.fromkeys(names, function))
            return function

        return enter

    return register


class Names:
    """Names that are given away once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._count = dict.fromkeys(taken, 1)  # how many there are of each

    def __contains__(self, name: str) -> bool:
        return name in self._count

    def free(self, wanted: str) -> str:
        """`wanted`, or `wanted_2`, `wanted_3`, ... if it is taken; taken from now on."""
        name = wanted
        while name in self._count:
            self._count[wanted] += 1
            name = f"{wanted}_{self._count[wanted]}"
        self._count[name] = 1
        return name


class Builder:
    """Collects nodes and initializers.

    Args:
        opset, ir_version: of the model.
        reserved: names of values that only `input` and the caller give.
    """

    def __init__(self, opset: int, ir_version: int, reserved: Iterable[str] = ()) -> None:
        self.opset, self.ir_version = opset, ir_version
        self.names, self._node_names = Names(reserved), Names()
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []

    def initializer(self, name: str, array: np.ndarray) -> ir.Value:
        """Add a constant under a name that is free."""
        tensor = ir.Tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self.initializers.append(value)
        return value

    def append(
        self, op: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, object], name: str, outputs: Sequence[str]
    ) -> list[ir.Value]:
        """Append a node and return its outputs, each with the type and, as far as it is known, the shape that ONNX infers.

        Args:
            inputs: None stands for an optional one.
            name: of the node, if it is free.
            outputs: names of the outputs.
        Raises:
            infold.inference.Contradiction: the inputs and attributes do not fit the operator.
        """
        formal = onnx.defs.get_schema(op, self.opset).attributes
        typed = {key: float(value) if formal[key].type == onnx.defs.OpSchema.AttrType.FLOAT else value
                 for key, value in attributes.items()}
        node = ir.node(op, list(inputs), typed, num_outputs=len(outputs), name=self._node_names.free(name))
        for value, given in zip(node.outputs, outputs):
            value.name = given
        known = {value.name: value for value in inputs if value is not None}
        data = {key: onnx.numpy_helper.from_array(value.const_value.numpy()) for key, value in known.items()
                if value.const_value is not None and value.const_value.size <= _SMALL}
        found = infer_node(ir.to_proto(node), self.opset, {key: _type(value) for key, value in known.items()}, data)
        for value in node.outputs:
            value.type = ir.serde.deserialize_type_proto_for_type(found[value.name])
            value.shape = ir.serde.deserialize_type_proto_for_shape(found[value.name])
        self.nodes.append(node)
        return list(node.outputs)

    def model(self, name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
        """The model of all nodes, with the constants that are read."""
        used = {value for node in self.nodes for value in node.inputs}
        constants = [value for value in self.initializers if value in used]
        graph = ir.Graph(inputs, outputs, nodes=self.nodes, initializers=constants, opset_imports={"": self.opset}, name=name)
        return ir.Model(graph, ir_version=self.ir_version, producer_name="infold")


def _type(value: ir.Value) -> onnx.TypeProto:
    dims = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    return onnx.helper.make_tensor_type_proto(int(value.dtype), dims)
