"""No rule makes a finite output non-finite: broken statistics stay, with a reason, and compute what they did."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from passes_harness import fold, model, normal, operators, run, statistics

BN = "BatchNormalization"
STRUCTURES = {
    "backward": "c = Conv(x, w) y = {bn}(c, scale, bias, mean, var)",
    "through": "c = Conv(x, w) n = Abs(x) d = Conv(n, w) s = Add(c, d) y = {bn}(s, scale, bias, mean, var)",
    "branches": "c = Conv(x, w) n = {bn}(x, scale, bias, mean, var) y = Add(c, n)",
    "chains": "r = Relu(x) n = {bn}(r, scale, bias, mean, var) m = Mul(n, k) y = Add(m, k)",
    "forward": "r = Relu(x) n = {bn}(r, scale, bias, mean, var) y = Conv(n, w)",
}
BROKEN = {
    "negative variance": ({"var": -1.0}, "variance + epsilon is not positive in channel 2"),
    "no variance and no epsilon": ({"var": 0.0, "epsilon": 0.0}, "variance + epsilon is not positive in channel 2"),
    "variance that is not a number": ({"var": np.nan}, "its parameters or statistics are not finite"),
    "infinite mean": ({"mean": np.inf}, "its parameters or statistics are not finite"),
    "infinite scale": ({"scale": -np.inf}, "its parameters or statistics are not finite"),
    "denormal variance": ({"var": 1e-40, "scale": 1e10, "epsilon": 0.0}, None),
}


def subject_of(structure: str, changes: dict[str, float]) -> ir.Model:
    """A network in which channel 2 of a BatchNormalization is as `changes` says."""
    rng = np.random.default_rng(0)
    constants = {"w": normal(rng, 4, 4, 1, 1), "k": normal(rng, 4, 1, 1), **statistics(rng, 4)}
    for name, value in changes.items():
        if name != "epsilon":
            constants[name][2] = value
    bn = f"{BN} <epsilon = {changes.get('epsilon', 1e-5):.6f}>"
    text = STRUCTURES[structure].format(bn=bn)
    proto = ir.to_proto(model(f"g (float[2,4,3,3] x) => (float[2,4,3,3] y) {{ {text} }}", constants))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("what", BROKEN)
def test_broken_statistics_stay_and_compute_the_same(structure, what):
    changes, reason = BROKEN[what]
    subject = subject_of(structure, changes)
    result, report = fold(subject)
    assert operators(result) == operators(subject)
    (item,) = report.items
    assert item.verdict == "kept"
    if reason is not None:
        assert item.reason == reason
    elif structure in ("backward", "through", "forward"):
        assert "would overflow" in item.reason
    feeds = {"x": normal(np.random.default_rng(1), 2, 4, 3, 3)}
    assert np.array_equal(run(result, feeds)["y"], run(subject, feeds)["y"], equal_nan=True)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_same_structures_fold_where_the_statistics_are_sound(structure):
    result, _ = fold(subject_of(structure, {"var": 1e-40, "epsilon": 0.0, "scale": 1e-20}))
    assert len(result.graph) < len(subject_of(structure, {}).graph)
    feeds = {"x": normal(np.random.default_rng(1), 2, 4, 3, 3)}
    assert np.isfinite(run(result, feeds)["y"]).all()
