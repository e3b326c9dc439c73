"""What is wrong with a model's BatchNormalizations, why, and what to do; and the statistics of every layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from ..importers import load
from ..passes import simplified
from ..passes.affine import not_constant
from ..passes.context import GraphContext, attribute, is_op, node_name
from ..passes.training import is_training

Severity = Literal["error", "warning", "info"]
SEVERITIES = ("error", "warning", "info")
PARAMETERS = ("scale", "bias", "mean", "variance")


@dataclass(frozen=True)
class Finding:
    """One thing the doctor has to say of a BatchNormalization: `message` tells what it is and why it hurts."""

    severity: Severity
    node: str
    kind: str
    message: str
    remedy: str


@dataclass(frozen=True)
class LayerStatistics:
    """Mean and standard deviation over the channels of the running mean and variance; None where not constant."""

    name: str
    channels: int | None
    mean_of_mean: float | None
    std_of_mean: float | None
    mean_of_var: float | None
    std_of_var: float | None


@dataclass
class DoctorReport:
    """Findings, the gravest first and otherwise in graph order, and the statistics of every BatchNormalization."""

    findings: list[Finding] = field(default_factory=list)
    layers: list[LayerStatistics] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict:
        """The JSON form: `findings` and `layers`."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Norm:
    """A BatchNormalization as the rules see it.

    Attributes:
        scale, bias, mean, variance: float64 per channel (with `spatial=0` also per position); None if not constant.
        training: whether its statistics come from the batch.
        spatial: False where it normalises every position for itself.
    """

    node: ir.Node
    epsilon: float
    training: bool
    spatial: bool
    scale: np.ndarray | None
    bias: np.ndarray | None
    mean: np.ndarray | None
    variance: np.ndarray | None

    @property
    def name(self) -> str:
        return node_name(self.node)

    @property
    def source(self) -> ir.Value:
        return self.node.inputs[0]

    @property
    def parameters(self) -> dict[str, np.ndarray | None]:
        return {what: getattr(self, what) for what in PARAMETERS}

    @property
    def gain(self) -> np.ndarray | None:
        """|scale| / sqrt(variance + epsilon), where that is a number."""
        if self.scale is None or self.variance is None:
            return None
        spread = self.variance + self.epsilon
        with np.errstate(all="ignore"):
            gain = np.abs(self.scale) / np.sqrt(np.where(spread > 0, spread, np.nan))
        return np.where(np.isfinite(gain), gain, 0.0)

    @property
    def untouched(self) -> bool:
        """Whether the statistics are those a layer starts with: mean 0 and variance 1, or in Caffe both 0."""
        return (
            self.mean is not None
            and self.variance is not None
            and self.variance.size > 0
            and not self.mean.any()
            and bool((self.variance == self.variance.flat[0]).all())
            and self.variance.flat[0] in (0, 1)
        )

    def not_constant(self) -> dict[str, str]:
        """Of each parameter that is not constant, what it is instead."""
        return {
            what: not_constant(value)
            for (what, array), value in zip(self.parameters.items(), self.node.inputs[1:5])
            if array is None
        }


@dataclass(frozen=True)
class Patient:
    """A model with its constants folded, and its BatchNormalizations in graph order, subgraphs included."""

    context: GraphContext
    norms: list[Norm]

    @classmethod
    def of(cls, context: GraphContext) -> Patient:
        return cls(context, [_norm(context, node) for node in context.nodes() if is_op(node, "BatchNormalization")])

    def norm(self, node: ir.Node | None) -> Norm | None:
        return next((norm for norm in self.norms if norm.node is node), None)


def doctor(model: object) -> DoctorReport:
    """Examine a model's BatchNormalizations.

    Args:
        model: anything `infold.load` takes. It is not run and not modified.
    Raises:
        Error: the model cannot be loaded.
    """
    from .doctor_rules import RULES

    patient = Patient.of(simplified(load(model)))
    findings = [finding for rule in RULES for norm in patient.norms for finding in rule(norm, patient)]
    order = {norm.name: place for place, norm in enumerate(patient.norms)}
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), order[finding.node]))
    return DoctorReport(findings, [_statistics(norm) for norm in patient.norms])


def _norm(context: GraphContext, node: ir.Node) -> Norm:
    opset = context.opset(node)
    arrays = [context.array(value) for value in node.inputs[1:5]]
    return Norm(
        node,
        attribute(node, "epsilon", 1e-5),
        is_training(node, opset),
        opset >= 9 or bool(attribute(node, "spatial", 1)),
        *(None if array is None else array.astype(np.float64) for array in arrays),
    )


def _statistics(norm: Norm) -> LayerStatistics:
    known = next((array for array in norm.parameters.values() if array is not None), None)
    numbers: list[float | None] = []
    for array in (norm.mean, norm.variance):
        with np.errstate(all="ignore"):
            numbers += [None, None] if array is None or not array.size else [float(array.mean()), float(array.std())]
    return LayerStatistics(norm.name, None if known is None else known.shape[0], *numbers)
