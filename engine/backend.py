"""ONNX's backend interface (onnx.backend.base), as its test suite and tools that speak it expect:

    outputs = infold.backend.prepare(model).run([x])
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend import base

from .api import InferenceSession, SessionOptions
from .errors import InvalidInputError, UnsupportedError


class BackendRep(base.BackendRep):
    """A model made ready to run."""

    def __init__(self, session: InferenceSession) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run the model.

        Args:
            inputs: one value per model input in order (the last ones may be missing where the model has defaults), the value
                itself if it is an array, or values by input name.
        Returns:
            A named tuple of the outputs, which can also be indexed by output name.
        Raises:
            InvalidInputError: as `InferenceSession.run`; also for more values than inputs.
        """
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            names = [value.name for value in self.session.model.graph.inputs]
            if len(inputs) > len(names):
                raise InvalidInputError(f"{len(inputs)} inputs given, the model has {len(names)}")
            inputs = dict(zip(names, inputs))
        names = [output.name for output in self.session.get_outputs()]
        return base.namedtupledict("Outputs", names)(*self.session.run(None, inputs))


class Backend(base.Backend):
    """infold on the CPU. Keyword arguments are fields of `SessionOptions`; BatchNormalization in training mode normalises with the
    batch, as the specification says."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.partition(":")[0] == "CPU"

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> BackendRep:
        """Make a session. model: anything `InferenceSession` takes.

        Raises:
            InvalidModelError, UnsupportedError: the model or the device cannot be used.
        """
        if not cls.supports_device(device):
            raise UnsupportedError(f"device {device!r}: infold runs on the CPU")
        return BackendRep(InferenceSession(model, SessionOptions(**{"training_mode": "batch", **kwargs})))

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU",
                 outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None = None, **kwargs: Any) -> tuple[Any, ...]:
        """Run one operator. inputs: arrays for the node's inputs that are not absent; outputs_info: (dtype, shape) per output, not
        needed; `opset_version`: default the newest."""
        opset = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        names = list(dict.fromkeys(filter(None, node.input)))
        arrays = dict(zip(names, [inputs] if isinstance(inputs, np.ndarray) else inputs))
        types = {n: onnx.helper.np_dtype_to_tensor_dtype(np.asarray(a).dtype) for n, a in arrays.items()}
        graph = onnx.helper.make_graph(
            [node], "node", [onnx.helper.make_tensor_value_info(n, t, np.shape(arrays[n])) for n, t in types.items()],
            [onnx.ValueInfoProto(name=n) for n in node.output if n])
        imports = [onnx.helper.make_opsetid("", opset)]
        if node.domain:
            imports.append(onnx.helper.make_opsetid(node.domain, 1))
        model = onnx.helper.make_model(graph, opset_imports=imports)
        return cls.run_model(onnx.shape_inference.infer_shapes(model), arrays, device, **kwargs)


is_compatible = Backend.is_compatible
prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device
