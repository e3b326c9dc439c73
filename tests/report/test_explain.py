"""The rule that took each BatchNormalization, or what stopped it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import infold
from infold.report.explain import explanations


@pytest.mark.parametrize("named", [True, False])
def test_every_kind_of_fold(named: bool) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4,8,8] x) => (float[N,4,8,8] y) {
        c0 = Conv (x, w0)  b0 = BatchNormalization (c0, s, b, m, v)
        r0 = Relu (b0)
        c1 = Conv (r0, w1)  b1 = BatchNormalization (r0, s, b, m, v)  a = Add (c1, b1)
        r1 = Relu (a)
        p = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r1)
        b2 = BatchNormalization (p, s, b, m, v)  c2 = Conv (b2, w2)
        r2 = Relu (c2)
        b3 = BatchNormalization <training_mode = 1> (r2, s, b, m, v)
        y = Relu (b3) }""")
    rng = np.random.default_rng(0)
    values = {name: rng.uniform(0.5, 1.5, 4) for name in "sbmv"}
    values |= {f"w{i}": rng.normal(size=(4, 4, 1, 1)) for i in range(3)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v.astype(np.float32), n) for n, v in values.items())
    for node in proto.graph.node:
        node.name = node.output[0] if named else ""
    model = ir.from_proto(proto)
    folded, report = infold.fold(model)
    assert [node.op_type for node in folded.graph].count("BatchNormalization") == 1
    stories = explanations(model, report)
    assert list(stories) == ["b0", "b1", "b2", "b3"]
    assert stories["b0"].startswith("backward: scales the output channels of the")
    assert "training mode" in stories["b3"]
    if named:
        assert stories["b1"] == "parallel branch: summed with the Conv beside it"
        assert stories["b2"].startswith("forward: scales the input channels of the Conv")
