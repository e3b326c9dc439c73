"""Shapes that a model declares of values inside it may be lies: the results are those of the model without them."""
from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from random_networks import random_network

import infold


def lie(rng: random.Random, value: onnx.ValueInfoProto) -> None:
    """Another rank, another dimension, dimensions in reverse, or all of them 1."""
    dims = value.type.tensor_type.shape.dim
    sizes = [dim.dim_value for dim in dims]
    kind = rng.randrange(5)
    at = rng.randrange(len(sizes)) if sizes else 0
    new = [sizes[:-1], [*sizes, rng.choice((1, 2, 4))], [*sizes[:at], rng.choice((1, 3, 8, 1 << 30)), *sizes[at + 1:]], sizes[::-1],
           [1] * len(sizes)][kind]
    del dims[:]
    for size in new:
        dims.add(dim_value=size)


@pytest.mark.parametrize("seed", range(0, 60, 2))
def test_false_shapes_change_nothing(seed: int):
    rng = random.Random(seed)
    model, feeds = random_network(rng, nodes=4 + seed % 12)
    expected = infold.InferenceSession(model).run(None, feeds)
    lying = onnx.shape_inference.infer_shapes(model)
    assert lying.graph.value_info
    for value in rng.sample(list(lying.graph.value_info), min(len(lying.graph.value_info), rng.choice((1, 2, 5)))):
        lie(rng, value)
    for found, value in zip(infold.InferenceSession(lying).run(None, feeds), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-4 * max(1e-3, np.abs(value).max()))
