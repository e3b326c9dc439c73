"""Networks of nngraph: one of real Torch, residual ones, several inputs and outputs, early and late forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch7_networks import conv, gmodule, linear, norm, random, sequential
from torch7_writer import check, dump, module, run, table

import infold
from infold.importers import torch7

REAL = Path(__file__).parent / "data" / "torch7"


def test_nngraph_of_real_torch():
    model = torch7.load(REAL / "gmodule_with_linear_identity.t7", shape=[(None, 1), (None, 2)])
    a, b = random(3, 1), random(3, 2)
    weight, bias = np.array([[-0.024837296], [0.17503953]]), np.array([0.05159848, -0.25367147])
    expected = b + a @ weight.T + bias
    for found in (run(model, a, b), infold.InferenceSession(model).run(None, {"input_1": a, "input_2": b})):
        np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-7)


def test_nngraph_residual_network():
    first, second, bn1, bn2 = conv(3, 4), conv(4, 4), norm(4), norm(4)
    network = gmodule(
        [None, first, bn1, module("ReLU"), second, bn2, module("CAddTable"), None],
        [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (3, 6), (6, 7)],
        1,
    )
    plain = sequential(
        first, bn1, module("ReLU"), table(sequential(second, bn2), module("Identity")), module("CAddTable")
    )
    x = random(2, 3, 8, 9)
    check(network, x, run(torch7.load(dump(plain)), x)[0])


@pytest.mark.parametrize("early", [False, True])
def test_nngraph_with_two_inputs_and_outputs(early):
    a, b = linear(4, 3), linear(5, 3)
    modules: list = [None, a, b, module("CSubTable"), module("Tanh"), None]
    edges = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (3, 5), (4, 5)]
    if not early:
        modules[1:1] = [1, 2]
        edges = [(0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 5), (5, 6), (5, 7), (6, 7)]
    x, y = random(2, 4), random(2, 5)
    apply = lambda layer, values: values @ layer.fields["weight"].T.astype(np.float64) + layer.fields["bias"]  # noqa: E731
    difference = apply(a, x) - apply(b, y)
    model = check(gmodule(modules, edges, 2, early), [x, y], [difference, np.tanh(difference)])
    assert [(v.name, list(v.shape)) for v in model.graph.inputs] == [("input_1", ["N", 4]), ("input_2", ["N", 5])]
    assert [v.name for v in model.graph.outputs] == ["output_1", "output_2"]
