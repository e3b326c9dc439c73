"""A second opinion on operators: onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from session_harness import session


@pytest.fixture
def like_onnxruntime():
    """like_onnxruntime(net, *outputs, tolerance): infold and onnxruntime give the same numbers for a `Net`."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4

    def check(net, *outputs: str, tolerance: float = 1e-5, types=None) -> None:
        model = net.model(*outputs, types=types)
        other = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, ["CPUExecutionProvider"])
        for found, expected in zip(session(model).run(list(outputs), net.feeds), other.run(list(outputs), net.feeds)):
            assert found.shape == expected.shape and found.dtype == expected.dtype
            np.testing.assert_allclose(
                found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max(initial=0)
            )

    return check
