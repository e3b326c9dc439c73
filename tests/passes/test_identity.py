"""Operators that return their input go; those that do not, and those that a graph output needs, stay."""

from __future__ import annotations

import numpy as np
import pytest
from passes_harness import fold, fold_and_compare, model, normal, operators


@pytest.mark.parametrize(
    "step, opset",
    [
        ("i = Identity(a)", 17),
        ("i = Cast <to = 1> (a)", 17),
        ("i = CastLike(a, x)", 17),
        ("i = Concat <axis = 1> (a)", 17),
        ("i = Sum(a)", 17),
        ("i = Max(a)", 17),
        ("i = Dropout(a)", 17),
        ("i = Dropout(a)", 10),
        ("i = Dropout(a, half, no)", 17),
        ("i, mask = Dropout(a)", 17),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_no_operation(step, opset, inside):
    tail = "y = Neg(i)" if inside else ""
    output = "y" if inside else "i"
    subject = model(
        f"g (float[2,3] x) => (float[2,3] {output}) {{ a = Abs(x) {step} {tail} }}",
        {"half": np.float32(0.5), "no": np.array(False)},
        opset=opset,
    )
    result, _ = fold_and_compare(subject, {"x": normal(np.random.default_rng(0), 2, 3)})
    assert operators(result) == ({"Abs": 1, "Neg": 1} if inside else {"Abs": 1})


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2] x) => (float[2] y) { y = Identity(x) }",
        "g (float[2] x) => (float[2] y, float[2] z) { y = Abs(x) z = Identity(y) }",
        "g (float[2] x) => (float[2] y) { a = Cast <to = 11> (x) b = Sin(a) y = Cast <to = 1> (b) }",
        "g (float[2] x, bool p) => (float[2] y) { a = Abs(x) y = If(p) <then_branch = t () => (float[2] "
        "v) { v = Identity(a) }, "
        "else_branch = e () => (float[2] u) { u = Neg(a) }> }",
    ],
)
def test_what_stays(text):
    subject = model(text)
    feeds = {"x": np.float32([1, -2]), "p": np.array(True)}
    result, _ = fold_and_compare(subject, {value.name: feeds[value.name] for value in subject.graph.inputs})
    assert operators(result) == operators(subject)


@pytest.mark.parametrize(
    "step, opset",
    [
        ("i = Dropout(a, half, yes)", 17),
        ("i = Dropout(a, half, flag)", 17),
        ("i = Dropout(a)", 6),
        ("i = Dropout <is_test = 0> (a)", 1),
    ],
)
def test_dropout_in_training_stays(step, opset):
    subject = model(
        f"g (float[2,3] x, bool flag) => (float[2,3] y) {{ a = Abs(x) {step} y = Neg(i) }}",
        {"half": np.float32(0.5), "yes": np.array(True)},
        opset=opset,
    )
    assert operators(fold(subject)[0]) == {"Abs": 1, "Dropout": 1, "Neg": 1}


def test_dropout_whose_mask_is_read_stays():
    subject = model("g (float[2,3] x) => (float[2,3] y, bool[2,3] m) { d, m = Dropout(x) y = Neg(d) }")
    result, _ = fold_and_compare(subject, {"x": normal(np.random.default_rng(0), 2, 3)})
    assert operators(result) == {"Dropout": 1, "Neg": 1}
