"""What a session fuses is said of the folded model, with the reason why it could not be folded."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import infold
from infold.report.fused import planned


def preactivation(shape: str = "1,16,8,8", training: int = 0) -> ir.Model:
    """A picture read raw, and normalised by two convolutions: the second's BatchNorm folds, the first's cannot."""
    outputs = "n, nm, nv" if training else "n"
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[{shape}] x) => (float[{shape}] y) {{
        p = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)
        {outputs} = BatchNormalization <training_mode = {training}> (p, s, b, m, v)  r = Relu (n)
        c = Conv (r, w)  d = BatchNormalization (c, s, b, m, v)  y = Add (d, p) }}"""
    )
    rng = np.random.default_rng(0)
    values = {name: rng.uniform(0.5, 1.5, 16) for name in "sbmv"} | {"w": rng.normal(size=(16, 16, 1, 1))}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v.astype(np.float32), n) for n, v in values.items())
    for node in proto.graph.node:
        node.name = f"the_{node.output[0]}"
    return ir.from_proto(proto)


@pytest.mark.parametrize("shape", ["1,16,8,8", "N,16,H,W"])
def test_a_prologue_is_fused_and_still_explained(shape: str) -> None:
    model, report = infold.fold(preactivation(shape))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    found = planned(model, report)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert (found.batchnorms, found.folded, found.fused, found.remaining) == (2, 1, 1, 1)
    first = found.items[0]
    assert (first.name, first.verdict, first.into) == ("the_n", "fused", "the_c") and "Relu" in first.reason


def test_statistics_of_the_batch_are_not_fused() -> None:
    found = planned(*infold.fold(preactivation(training=1)))
    assert found.items[0].verdict == "kept" and "training mode" in found.items[0].reason


def test_a_model_that_no_session_runs_keeps_its_report() -> None:
    model, report = infold.fold(preactivation())
    model.graph.append(ir.Node("somewhere", "Unknown", [model.graph.outputs[0]]))
    assert planned(model, report) is report and report.remaining == 1
