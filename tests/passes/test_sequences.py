"""SplitToSequence read at constant places becomes Split."""

from __future__ import annotations

import numpy as np
import pytest
from passes_harness import fold_and_compare, model, normal, operators


@pytest.mark.parametrize(
    "split, places", [((2, 5), (0, 1)), ((2, 5), (1,)), ((2, 5), (-1, 0)), (3, (0, 2)), ((3, 3, 1), (2, 2, 0)), (None, (0, 6))]
)
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_becomes_split(split, places, opset):
    if split is None:
        given, keep = "", ", keepdims = 1"
    else:
        given, keep = ", split", ""
    reads = " ".join(f"p{i} = SequenceAt(s, i{i}) y{i} = Neg(p{i})" for i in range(len(places)))
    outputs = ", ".join(f"float[2,C{i}] y{i}" for i in range(len(places)))
    constants = {f"i{i}": np.array(place) for i, place in enumerate(places)} | ({} if split is None else {"split": np.array(split)})
    subject = model(
        f"g (float[2,7] x) => ({outputs}) {{ s = SplitToSequence <axis = 1{keep}> (x{given}) {reads} }}", constants, opset=opset
    )
    result, _ = fold_and_compare(subject, {"x": normal(np.random.default_rng(0), 2, 7)})
    assert operators(result) == {"Split": 1, "Neg": len(places)}


def test_graph_outputs_read_twice():
    subject = model(
        "g (float[2,7] x) => (float[2,C] a, float[2,C] b) { s = SplitToSequence <axis = 1> (x, n) a = SequenceAt(s, i) "
        "b = SequenceAt(s, i) }",
        {"n": np.array([3, 4]), "i": np.array(1)},
    )
    result, _ = fold_and_compare(subject, {"x": normal(np.random.default_rng(0), 2, 7)})
    assert operators(result) == {"Split": 1, "Identity": 1}


@pytest.mark.parametrize(
    "text, shape",
    [
        ("s = SplitToSequence <axis = 1> (x, n) y = SequenceAt(s, place)", "2,C"),
        (
            "s = SplitToSequence <axis = 1> (x, n) l = SequenceLength(s) f = Cast <to = 1> (l) p = SequenceAt(s, i) y = Mul(p, f)",
            "2,C",
        ),
        ("s = SplitToSequence <axis = 0, keepdims = 0> (x) y = SequenceAt(s, i)", "7"),
    ],
)
def test_what_stays(text, shape):
    subject = model(f"g (float[2,7] x, int64 place) => (float[{shape}] y) {{ {text} }}", {"n": np.array([3, 4]), "i": np.array(1)})
    result, _ = fold_and_compare(subject, {"x": normal(np.random.default_rng(0), 2, 7), "place": np.array(1)})
    assert operators(result) == operators(subject)
