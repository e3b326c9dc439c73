"""What is wrong with a model's BatchNormalizations, why, and what to do; and the statistics of every layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np

from ..importers import load
from ..passes import simplified
from .doctor_rules import RULES, SEVERITIES, Finding
from .patient import Norm, Patient


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


def doctor(model: object) -> DoctorReport:
    """Examine a model's BatchNormalizations.

    Args:
        model: anything `infold.load` takes. It is not run and not modified.
    Raises:
        Error: the model cannot be loaded.
    """
    patient = Patient.of(simplified(load(model)))
    findings = [finding for rule in RULES for norm in patient.norms for finding in rule(norm, patient)]
    order = {norm.name: place for place, norm in enumerate(patient.norms)}
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), order[finding.node]))
    return DoctorReport(findings, [_statistics(norm) for norm in patient.norms])


def _statistics(norm: Norm) -> LayerStatistics:
    known = next((array for array in norm.parameters.values() if array is not None), None)
    numbers: list[float | None] = []
    for array in (norm.mean, norm.variance):
        with np.errstate(all="ignore"):
            numbers += [None, None] if array is None or not array.size else [float(array.mean()), float(array.std())]
    return LayerStatistics(norm.name, None if known is None else known.shape[0], *numbers)
