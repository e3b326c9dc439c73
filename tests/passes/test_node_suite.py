"""The operator tests of ONNX's backend suite, their inputs made constants, fold to the expected outputs or stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx.backend.test.case.node import collect_testcases

from infold import passes

LARGE = 500  # elements; the reference takes its time over the larger cases, which test nothing else


def with_constant_inputs(case) -> onnx.ModelProto | None:
    """The model with its inputs as initializers and a node behind each output; None for large inputs or no tensors."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    inputs, _ = case.data_sets[0]
    for value, array in zip(model.graph.input, inputs):
        if not value.type.HasField("tensor_type") or isinstance(array, list):
            return None
        tensor = array if isinstance(array, onnx.TensorProto) else onnx.numpy_helper.from_array(np.asarray(array))
        if np.prod(tensor.dims) > LARGE:
            return None
        model.graph.initializer.add().CopyFrom(tensor)
        model.graph.initializer[-1].name = value.name
    del model.graph.input[:]
    for value in model.graph.output:
        model.graph.node.add(op_type="Identity", input=[value.name], output=[f"{value.name}_output"])
        value.name += "_output"
    return model


def test_constant_folding_computes_what_onnx_expects():
    checked = 0
    for case in collect_testcases(None):
        proto = with_constant_inputs(case) if case.model is not None and case.data_sets else None
        if proto is None:
            continue
        folded, _ = passes.prepare(ir.from_proto(proto))
        for output, expected in zip(folded.graph.outputs, case.data_sets[0][1]):
            value = output.producer().inputs[0] if output.producer().op_type == "Identity" else None
            if value is None or not value.is_initializer() or value.dtype == ir.DataType.STRING:
                continue
            array = value.const_value.numpy()
            expected = onnx.numpy_helper.to_array(expected) if isinstance(expected, onnx.TensorProto) else np.asarray(expected)
            assert (array.dtype, array.shape) == (expected.dtype, expected.shape), case.name
            np.testing.assert_allclose(array.astype(np.complex128), expected.astype(np.complex128), 1e-3, 1e-5, err_msg=case.name)
            checked += 1
    assert checked > 1000
