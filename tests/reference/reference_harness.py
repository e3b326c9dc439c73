"""Helpers for tests of the reference operators: one node from plain Python values."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from infold.reference import NodeRunner


def run_node(op_type: str, *inputs, opset: int | None = None, outputs: int = 1, domain: str = "", **attributes):
    """Run one operator on arrays (None: absent) and return its outputs, a single one unpacked.

    Every floating output must have the type of the first floating input: the operators keep their input's precision.
    """
    node = ir.node(
        op_type,
        [None if value is None else ir.Value(name=f"x{index}") for index, value in enumerate(inputs)],
        attributes,
        domain=domain,
        outputs=[ir.Value(name=f"y{index}") for index in range(outputs)],
    )
    runner = NodeRunner(node, {"": opset or onnx.defs.onnx_opset_version()})
    results = runner.run(inputs)
    precision = next((value.dtype for value in inputs if isinstance(value, np.ndarray) and value.dtype.kind == "f"), None)
    for result in results:
        assert not isinstance(result, np.ndarray) or result.dtype.kind != "f" or precision in (None, result.dtype)
    return results[0] if len(results) == 1 else results


def close(found: np.ndarray, expected, tolerance: float = 1e-12) -> None:
    """Assert equal shapes and max|found - expected| <= tolerance * max|expected|; the reference must not be zero."""
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    assert expected.size == 0 or np.abs(expected).max() > 0, "a reference of zeros proves nothing"
    assert np.abs(found - expected).max(initial=0) <= tolerance * np.abs(expected).max(initial=0)
