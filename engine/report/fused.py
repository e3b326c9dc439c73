"""Which BatchNormalizations left in a folded model cost a session no pass of their own."""

from __future__ import annotations

import onnx_ir as ir

from ..api import InferenceSession, SessionOptions
from ..errors import Error
from .fold import FoldReport
from .inputs import required_inputs, usual_shape


def planned(model: ir.Model, report: FoldReport) -> FoldReport:
    """The report of `infold.fold`, with "fused" for what a session's plan makes part of another node's kernel.

    Args:
        model: the folded model; not modified. Open dimensions of its inputs are planned as batch 1 and size 224.
        report: what folding said of it; returned as it is if nothing remains, or if no session can run the model.
    """
    if not report.remaining:
        return report
    model = model.clone()
    for value in required_inputs(model):
        if value.shape is not None:
            value.shape = ir.Shape(usual_shape(value))
    try:
        session = InferenceSession(model, SessionOptions(training_mode="batch"))
    except Error:
        return report
    return report.with_fused({item.name: item.into for item in session.report.fold.items if item.verdict == "fused"})
