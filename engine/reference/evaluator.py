"""Single nodes on NumPy arrays: onnx.reference's operator classes, prepared once, with this package's replacements.

`NodeRunner` runs any node of a model, with the opset, functions and subgraphs it has there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import RuntimeContextError, RuntimeImplementationError

from infold.errors import Error, InvalidModelError, ShapeError, UnsupportedError, first_line
from infold.plan.graph import captured
from infold.reference import control, convolution, elementwise, gather, legacy, normalization, pooling, resize

REPLACEMENTS = [
    convolution.Conv,
    convolution.ConvTranspose,
    pooling.MaxPool,
    pooling.AveragePool,
    pooling.LpPool,
    pooling.GlobalMaxPool,
    pooling.GlobalLpPool,
    normalization.BatchNormalization,
    normalization.LRN,
    normalization.GroupNormalization,
    normalization.LpNormalization,
    normalization.MeanVarianceNormalization,
    resize.Resize,
    resize.Upsample,
    control.If,
    control.Loop,
    control.Optional,
    control.Scan,
    elementwise.Erf,
    *elementwise.BROADCASTING,
    gather.GatherElements,
    legacy.Dropout,
    legacy.GridSample,
    legacy.Pad,
    legacy.Reshape,
    legacy.Scatter,
    legacy.Squeeze,
    *legacy.SOFTMAX,
]


class _Evaluator(ReferenceEvaluator):
    """onnx.reference's evaluator, with the replacements in every subgraph and function body."""

    def __init__(self, proto, **options):
        options["new_ops"] = options.get("new_ops") or REPLACEMENTS
        super().__init__(proto, **options)

    def _init(self) -> None:
        super()._init()
        for (
            node
        ) in self.rt_nodes_:  # a NumPy float32 attribute would round what is computed from it; a Python float takes any precision
            for name in node.attributes_names_ if node.domain == "" else ():
                if isinstance(value := getattr(node, name), np.float32):
                    setattr(node, name, float(value))


class NodeRunner:
    """One node, ready to run any number of times.

    Args:
        node: a node whose calls to model-local functions are inlined (see `inline`).
        opsets: opset version per domain, as the node's model imports them.
        proto: the node in protobuf form if it should differ from `node` (the float64 run widens it).
    Attributes:
        inputs, outputs: value names, "" where optional ones are absent.
        captured: the outer-scope values that the node's subgraphs read; `run` needs them in `scope`.
    Raises:
        UnsupportedError: no implementation of the operator exists.
        InvalidModelError: the node's attributes do not fit its operator.
    """

    def __init__(self, node: ir.Node, opsets: Mapping[str, int], proto: onnx.NodeProto | None = None):
        proto = ir.to_proto(node) if proto is None else proto
        self.name = describe(node)
        self.inputs = tuple(proto.input)
        self.outputs = tuple(proto.output)
        self.captured = tuple(sorted(captured(node)))
        graph = onnx.GraphProto(
            node=[proto], input=[onnx.ValueInfoProto(name=name) for name in proto.input] or [onnx.ValueInfoProto()]
        )
        imports = {"": 1, **opsets}
        try:
            self._run = _Evaluator(graph, opsets=imports).rt_nodes_[0]
        except (NotImplementedError, RuntimeImplementationError, RuntimeContextError) as error:
            raise UnsupportedError(
                f"{self.name}: no implementation for opset {imports.get(node.domain)}: {first_line(error)}"
            ) from error
        except Exception as error:  # onnx.reference raises any type for attributes that do not fit
            raise InvalidModelError(f"{self.name} cannot be prepared: {first_line(error)}") from error

    def run(self, inputs: Sequence[object], scope: Mapping[str, object] | None = None) -> tuple:
        """Compute the node.

        Args:
            inputs: an array (or a list of arrays for a sequence) per input, None for absent ones.
            scope: the values named in `captured`.
        Returns:
            One value per output that the operator computes.
        Raises:
            ShapeError: the operator refuses these shapes; InvalidModelError: it fails for any other reason.
        """
        try:
            with np.errstate(all="ignore"):
                options = {"context": dict(scope or {})} if self._run.need_context() else {}
                return self._run.run(*inputs, **options)[: len(self.outputs)]
        except (MemoryError, Error):
            raise
        except Exception as error:  # as above; the cause is kept
            root = error.__cause__ if isinstance(error, TypeError) and error.__cause__ is not None else error
            kind = ShapeError if isinstance(root, (ValueError, IndexError)) else InvalidModelError
            raise kind(f"{self.name} fails on inputs {[_shape(value) for value in inputs]}: {first_line(root)}") from error


def inline(model: ir.Model) -> ir.Model:
    """Return the model without calls to model-local functions: itself if there are none, else an inlined copy."""
    if not model.functions:
        return model
    from onnx_ir.passes.common import InlinePass

    try:
        return InlinePass()(model.clone()).model
    except (ValueError, ir.passes.PassError) as error:
        raise UnsupportedError(f"the model's functions cannot be inlined: {first_line(error)}") from error


def describe(node: ir.Node) -> str:
    """Name a node for a message: its name, or its first output, and its operator."""
    name = node.name or (node.outputs[0].name if node.outputs else "")
    return f"node {name!r} ({f'{node.domain}::' if node.domain else ''}{node.op_type})"


def _shape(value: object) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
