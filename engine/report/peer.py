"""onnxruntime beside infold: the same model, any of its values."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from infold.errors import first_line

_EMBEDDED_BYTES = 1 << 30  # weights beyond this go beside the model: a protobuf message ends at 2 GiB


class PeerError(Exception):
    """onnxruntime is not installed, or refuses the model; the text says why in one line."""


class Peer:
    """onnxruntime, at its default optimisation level, on the CPU.

    Args:
        model: not modified.
        threads: 0 for onnxruntime's own choice.
    Raises:
        PeerError: onnxruntime is not installed.
    """

    def __init__(self, model: ir.Model, threads: int = 0):
        try:
            import onnxruntime
        except ImportError:
            raise PeerError("not installed (pip install onnxruntime)") from None
        self.version = onnxruntime.__version__
        self._onnxruntime, self._model, self._threads = onnxruntime, model, threads

    def run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, object]:
        """Compute values of the main graph by name.

        Raises:
            PeerError: onnxruntime cannot load or run the model.
        """
        try:
            return dict(zip(names, self._session(names).run(list(names), dict(feeds))))
        except Exception as error:  # its exception classes have no common base
            raise PeerError(f"cannot run the model: {first_line(error)}") from error

    def _session(self, names: Sequence[str]):
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self._threads, 4
        load = lambda source: self._onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])  # noqa: E731
        model = self._model.clone()
        outputs = {value.name for value in model.graph.outputs}
        values = {value.name: value for node in model.graph for value in node.outputs}
        model.graph.outputs.extend(values[name] for name in names if name not in outputs)
        weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
        if weights <= _EMBEDDED_BYTES:
            return load(ir.to_proto(model).SerializeToString())
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.onnx")
            ir.save(model, path, external_data="weights")
            return load(path)
