"""Helpers for tests of the reference operators: one node from plain Python values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import torch
from hypothesis import strategies as st

from infold.reference import NodeRunner

generators = st.integers(0, 99).map(np.random.default_rng)


@dataclass
class Windows:
    """Windows over an image of size `spatial`, and the attributes by which ONNX calls them; `pads` are the same at both ends."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    spatial: list[int]
    attributes: dict


@st.composite
def windows(draw, most: int | None = 2, **more: st.SearchStrategy) -> Windows:
    """Of one to three dimensions; most: the largest padding, half the kernel if None; more: further attributes."""
    rank = draw(st.integers(1, 3))
    kernel, strides, dilations, spatial = ([draw(st.integers(*limits)) for _ in range(rank)]
                                           for limits in ((1, 3), (1, 3), (1, 2), (5, 8)))
    pads = [draw(st.integers(0, k // 2 if most is None else most)) for k in kernel]
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads * 2}
    return Windows(kernel, strides, dilations, pads, spatial, attributes | {name: draw(values) for name, values in more.items()})


def tensors(*arrays: np.ndarray | None) -> list:
    """Tensors of torch; None stays None."""
    return [None if array is None else torch.tensor(array) for array in arrays]


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
