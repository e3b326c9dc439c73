"""What is an affine map per channel: arithmetic with constants, BatchNormalization of every operator set."""

from __future__ import annotations

import numpy as np
import pytest
from passes_harness import assert_close, batchnorm, conv, fold, fold_and_compare, model, normal, operators, run, statistics

BN = "BatchNormalization"


@pytest.mark.parametrize(
    "spelling, exact",
    [
        ("Mul(z, k)", lambda z, k: z * k),
        ("Mul(k, z)", lambda z, k: k * z),
        ("Add(z, k)", lambda z, k: z + k),
        ("Add(k, z)", lambda z, k: k + z),
        ("Sub(z, k)", lambda z, k: z - k),
        ("Sub(k, z)", lambda z, k: k - z),
        ("Div(z, k)", lambda z, k: z / k),
        ("Neg(z)", lambda z, k: -z),
    ],
)
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 4, 1, 1), (1, 1, 1, 1)])
def test_arithmetic_with_a_constant_per_channel(spelling, exact, shape):
    rng = np.random.default_rng(0)
    parameters = {"w": normal(rng, 4, 3, 3, 3), "k": normal(rng, *shape)}
    subject = model(f"g (float[N,3,6,6] x) => (float[N,4,4,4] y) {{ z = Conv(x, w) y = {spelling} }}", parameters)
    x = normal(rng, 2, 3, 6, 6)
    folded, _ = fold(subject)
    assert operators(folded) == {"Conv": 1}
    assert_close(run(folded, {"x": x})["y"], exact(conv(x, parameters["w"]), parameters["k"].astype(np.float64)))


@pytest.mark.parametrize(
    "operand, shape", [("k", (4,)), ("k", (1, 1, 4, 1)), ("k", (2, 4, 1, 1)), ("k", (1, 1, 4, 1, 1)), ("k", (4, 4, 4)), ("z", ())]
)
def test_arithmetic_that_is_not_per_channel_stays(operand, shape):
    rng = np.random.default_rng(0)
    result = "2,D,4,4" if len(shape) < 5 else "1,2,4,4,4"
    subject = model(
        f"g (float[2,3,6,6] x) => (float[{result}] y) {{ z = Conv(x, w) y = Mul(z, {operand}) }}",
        {"w": normal(rng, 4, 3, 3, 3), "k": normal(rng, *shape)},
    )
    folded, _ = fold_and_compare(subject, {"x": normal(rng, 2, 3, 6, 6)})
    assert operators(folded) == {"Conv": 1, "Mul": 1}


def test_one_channel_is_not_broadcast_to_many():
    rng = np.random.default_rng(0)
    subject = model(
        "g (float[2,3,6,6] x) => (float[2,5,4,4] y) { z = Conv(x, w) y = Mul(z, k) }",
        {"w": normal(rng, 1, 3, 3, 3), "k": normal(rng, 5, 1, 1)},
    )
    folded, _ = fold_and_compare(subject, {"x": normal(rng, 2, 3, 6, 6)})
    assert operators(folded) == {"Conv": 1, "Mul": 1}


def test_division_by_zero_stays():
    rng = np.random.default_rng(0)
    subject = model(
        "g (float[2,3,6,6] x) => (float[2,4,4,4] y) { z = Conv(x, w) y = Div(z, k) }",
        {"w": normal(rng, 4, 3, 3, 3), "k": np.float32([1, 0, 2, 3]).reshape(4, 1, 1)},
    )
    assert operators(fold(subject)[0]) == {"Conv": 1, "Div": 1}


def old(rng, text, opset, **constants):
    subject = model(text, {"w": normal(rng, 4, 3, 3, 3), **statistics(rng, 4), **constants}, opset=opset, ir_version=3)
    for name in ("w", "scale", "bias", "mean", "var", *constants):  # IR version 3 lists every initializer as an input
        subject.graph.inputs.append(subject.graph.initializers[name])
    return subject


@pytest.mark.parametrize(
    "opset, attributes, folds",
    [
        (1, "consumed_inputs = [0, 0, 0, 1, 1], is_test = 1", True),
        (1, "consumed_inputs = [0, 0, 0, 1, 1]", False),
        (6, "is_test = 1", True),
        (6, "is_test = 0", False),
        (6, "is_test = 1, spatial = 1", True),
        (6, "is_test = 1, spatial = 0", False),
        (7, "momentum = 0.9", True),
        (7, "spatial = 0", False),
        (9, "momentum = 0.9", True),
        (14, "training_mode = 0", True),
        (15, "momentum = 0.9", True),
    ],
)
def test_batchnorm_of_every_operator_set(opset, attributes, folds):
    rng = np.random.default_rng(0)
    subject = old(
        rng,
        f"g (float[N,3,6,6] x) => (float[N,4,4,4] y) {{ c = Conv(x, w) y = {BN}<{attributes}>(c, scale, bias, mean, var) }}",
        opset,
    )
    parameters = {name: value.const_value.numpy() for name, value in subject.graph.initializers.items()}
    folded, report = fold(subject)
    assert report.folded == int(folds)
    if folds:
        x = normal(rng, 2, 3, 6, 6)
        assert_close(run(folded, {"x": x})["y"], batchnorm(conv(x, parameters["w"]), parameters))


@pytest.mark.parametrize("opset, outputs, folds", [(9, "y", True), (9, "y, m, v, sm, sv", False), (14, "y", True)])
def test_naming_the_optional_outputs_means_training_before_opset_14(opset, outputs, folds):
    rng = np.random.default_rng(0)
    subject = old(
        rng, f"g (float[N,3,6,6] x) => (float[N,4,4,4] y) {{ c = Conv(x, w) {outputs} = {BN}(c, scale, bias, mean, var) }}", opset
    )
    assert fold(subject)[1].folded == int(folds)


@pytest.mark.parametrize(
    "attributes, shape, folds",
    [
        ("broadcast = 1, axis = 1", (4,), True),
        ("broadcast = 1, axis = -3", (4,), True),
        ("broadcast = 1", (1,), True),
        ("broadcast = 1, axis = 2", (4,), False),
        ("broadcast = 1", (4,), False),
        ("broadcast = 1, axis = 1", (4, 1, 1), True),
    ],
)
@pytest.mark.parametrize("kind", ["Mul", "Add"])
def test_broadcasting_by_attributes_before_opset_7(kind, attributes, shape, folds):
    rng = np.random.default_rng(0)
    subject = old(
        rng,
        f"g (float[N,3,6,6] x) => (float[N,4,4,4] y) {{ c = Conv(x, w) y = {kind}<{attributes}>(c, k) }}",
        6,
        k=normal(rng, *shape),
    )
    w, k = (subject.graph.initializers[name].const_value.numpy() for name in "wk")
    folded, _ = fold(subject)
    assert operators(folded)[kind] == (not folds)
    if folds:
        x = normal(rng, 2, 3, 6, 6)
        k = k.reshape(-1, 1, 1)
        assert_close(run(folded, {"x": x})["y"], conv(x, w) * k if kind == "Mul" else conv(x, w) + k)
