"""What lies around a BatchNormalization: its data, and its twins in parallel branches."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ..passes.context import is_op
from .patient import Norm, Patient

_ACTIVATIONS = (
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Clip",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Elu",
    "Tanh",
    "Softplus",
    "Identity",
    "Dropout",
)
_JOINS = ("Add", "Sum", "Concat", "Mul")


def from_its_data(norm: Norm) -> bool:
    """Whether mean or variance is computed from what the BatchNormalization normalises."""
    source = norm.source
    if is_op(source.producer(), "Reshape", "Transpose", "Unsqueeze", "Flatten"):
        source = source.producer().inputs[0]
    return any(
        value is not None and not value.is_initializer() and any(v is source for v in _upstream(value))
        for value in norm.node.inputs[3:5]
    )


def twins(norm: Norm, patient: Patient) -> Iterator[Norm]:
    """BatchNormalizations that end a parallel branch of the same join, or follow a layer with the same weights."""
    value = norm.node.outputs[0]
    while len(users := value.consumers()) == 1 and is_op(users[0], *_ACTIVATIONS):
        value = users[0].outputs[0]
    for join in users:
        if is_op(join, *_JOINS):
            yield from (twin for other in join.inputs if other is not value and (twin := _last_norm(other, patient)) is not None)
    layer = norm.source.producer()
    if layer is not None and is_op(layer, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        for sibling in layer.inputs[1].consumers():
            if sibling is not layer:
                yield from (twin for user in sibling.outputs[0].consumers() if (twin := patient.norm(user)) is not None)


def _last_norm(value: ir.Value, patient: Patient) -> Norm | None:
    """The BatchNormalization that a value comes from, by activations alone."""
    node = value.producer()
    while is_op(node, *_ACTIVATIONS):
        node = node.inputs[0].producer()
    return patient.norm(node)


def _upstream(value: ir.Value) -> Iterator[ir.Value]:
    """Every value that this one is computed from, itself included, outer scopes of subgraphs excluded."""
    seen, waiting = {value}, [value]
    while waiting:
        yield (current := waiting.pop())
        producer = current.producer()
        new = {v for v in (producer.inputs if producer is not None else ()) if v is not None} - seen
        seen |= new
        waiting.extend(new)
