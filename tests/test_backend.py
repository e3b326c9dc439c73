"""onnx.backend.base's interface beyond what the conformance suite uses of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from infold import InvalidInputError, UnsupportedError, backend

MODEL = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[2] x, float[2] y) => (float[2] sum, float[2] second) { sum = Add (x, y)  second = Sub (x, y) }""")
X, Y = np.array([1.0, 2.0], np.float32), np.array([5.0, 7.0], np.float32)


def test_inputs_by_position_and_by_name():
    prepared = backend.prepare(MODEL)
    for inputs in ([X, Y], {"y": Y, "x": X}):
        outputs = prepared.run(inputs)
        assert outputs[0].tolist() == outputs["sum"].tolist() == outputs.sum.tolist() == [6, 9]
        assert outputs["second"].tolist() == [-4, -5]
    with pytest.raises(InvalidInputError, match="3 inputs"):
        prepared.run([X, Y, X])


def test_one_node():
    node = onnx.helper.make_node("Clip", ["x", "", "high"], ["y"])
    (y,) = backend.run_node(node, [X, np.float32(1.5)])
    assert y.tolist() == [1, 1.5]
    assert backend.run_node(onnx.helper.make_node("Relu", ["x"], ["y"]), -X)[0].tolist() == [0, 0]
    old = onnx.helper.make_node("Add", ["x", "y"], ["z"], broadcast=1, axis=0)
    (z,) = backend.run_node(old, [np.ones((2, 3), np.float32), X], opset_version=6)
    assert z.tolist() == [[2] * 3, [3] * 3]


def test_devices():
    assert backend.supports_device("CPU") and backend.supports_device("CPU:0") and not backend.supports_device("CUDA")
    with pytest.raises(UnsupportedError, match="CUDA"):
        backend.prepare(MODEL, "CUDA")
    with pytest.raises(TypeError):
        backend.run_model(MODEL, [X, Y], no_such_option=1)


def test_options_reach_the_session():
    assert backend.prepare(MODEL, intra_op_num_threads=3).session.threads == 3
