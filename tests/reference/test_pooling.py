"""Pooling in float64 against torch's float64 and against the definition, over its attributes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_harness import close, generators, run_node, tensors, windows

from infold.reference.windows import Windows

MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


pools = windows(most=None, ceil_mode=st.integers(0, 1))


@settings(max_examples=60, deadline=None)
@given(pools, generators)
def test_max_pool_and_its_indices_match_torch(each, rng):
    x = rng.standard_normal((2, 3, *each.spatial))
    y, index = run_node("MaxPool", x, outputs=2, **each.attributes)
    ceil = bool(each.attributes["ceil_mode"])
    expected, places = MAX[len(each.kernel)](*tensors(x), each.kernel, each.strides, each.pads, each.dilations, ceil, True)
    close(y, expected)
    assert np.array_equal(x.ravel()[index], y)
    assert np.array_equal(index % np.prod(each.spatial), places)
    assert np.array_equal(run_node("MaxPool", x, **each.attributes), y)


def test_column_major_indices():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 6))
    y, index = run_node("MaxPool", x, outputs=2, kernel_shape=[2, 2], strides=[2, 2], storage_order=1)
    assert np.array_equal(np.swapaxes(x, 2, 3).ravel()[index], y)


@settings(max_examples=60, deadline=None)
@given(pools, generators, st.booleans())
def test_average_pool_matches_torch(each, rng, include):
    x = rng.standard_normal((2, 3, *each.spatial))
    y = run_node("AveragePool", x, count_include_pad=int(include), **each.attributes | {"dilations": [1] * len(each.kernel)})
    ceil = bool(each.attributes["ceil_mode"])
    close(y, AVERAGE[len(each.kernel)](*tensors(x), each.kernel, each.strides, each.pads, ceil, include))


@settings(max_examples=40, deadline=None)
@given(pools, generators, st.booleans(), st.integers(1, 3))
def test_dilated_average_and_lp_pool_match_the_definition(each, rng, include, p):
    x, options = rng.standard_normal((1, 2, *each.spatial)), each.attributes
    average = run_node("AveragePool", x, count_include_pad=int(include), **options)
    norm = run_node("LpPool", x, p=p, **options)
    assert average.shape == norm.shape
    for place in itertools.product(*(range(n) for n in average.shape[2:])):
        cells, inside, counted = [], 0, 0
        for tap in itertools.product(*(range(k) for k in each.kernel)):
            at = [o * s - pad + t * d for o, s, pad, t, d in zip(place, each.strides, each.pads, tap, each.dilations)]
            counted += all(-pad <= a < n + pad for a, n, pad in zip(at, each.spatial, each.pads))
            if all(0 <= a < n for a, n in zip(at, each.spatial)):
                inside += 1
                cells.append(x[(0, slice(None), *at)])
        total = np.sum(cells, axis=0) if cells else np.zeros(2)
        count = counted if include else inside
        assert np.allclose(average[(0, slice(None), *place)], total / max(count, 1), rtol=1e-12, atol=1e-12)
        power = np.sum(np.abs(cells) ** p, axis=0) if cells else np.zeros(2)
        assert np.allclose(norm[(0, slice(None), *place)], power ** (1 / p), rtol=1e-12, atol=1e-12)


def test_windows_that_would_start_in_the_padding_are_dropped():
    x = np.ones((1, 1, 4, 4))
    y = run_node("AveragePool", x, kernel_shape=[1, 1], strides=[3, 3], pads=[0, 0, 1, 1], ceil_mode=1)
    assert y.shape == (1, 1, 2, 2) and np.all(y == 1)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_max_pool_of_integers(dtype):
    x = np.random.default_rng(0).integers(0, 100, (1, 2, 6, 6)).astype(dtype)
    y = run_node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    assert y.dtype == x.dtype and np.array_equal(y, x.reshape(1, 2, 3, 2, 3, 2).max(axis=(3, 5)))


def test_global_pools():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    close(run_node("GlobalLpPool", x, p=3), (np.abs(x) ** 3).sum(axis=(2, 3), keepdims=True) ** (1 / 3))
    close(run_node("GlobalAveragePool", x), x.mean(axis=(2, 3), keepdims=True))
    close(run_node("GlobalMaxPool", x), x.max(axis=(2, 3), keepdims=True))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_windows_far_larger_than_the_image(op):
    """A tap under which there is only padding costs nothing: a kernel of 2^24 pixels took minutes."""
    x = np.random.default_rng(5).standard_normal((1, 2, 5, 5), np.float32)
    found = run_node(op, x, auto_pad="SAME_UPPER", kernel_shape=[3, 1 << 16], strides=[2, 3])
    rows = [x[:, :, max(2 * i - 1, 0):2 * i + 2] for i in range(3)]
    expected = {"MaxPool": lambda r: r.max(axis=(2, 3)), "AveragePool": lambda r: r.mean(axis=(2, 3)),
                "LpPool": lambda r: np.sqrt((r * r).sum(axis=(2, 3)))}[op]
    np.testing.assert_allclose(found, np.stack([np.stack([expected(r)] * 2, -1) for r in rows], 2), rtol=1e-5)
    taps = Windows((3, 1 << 24), (2, 3), (1, 1), (1, 1 << 23), (1, 1 << 23), (5, 5), (3, 2)).taps_over_input()
    assert len(list(taps)) <= 3 * 9
