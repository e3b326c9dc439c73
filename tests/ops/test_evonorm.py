"""EvoNorm and the layer norm of unbiased deviation: one step each, against NumPy in float64."""
from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, compare
from session_harness import native_function as run

SHAPES = [(2, 6, 9), (1, 6, 5, 7), (64, 6, 3, 3), (1, 66, 31, 29), (2, 12, 3, 4, 5), (1, 320, 2, 2), (3, 6, 1, 1)]


def source(net: Net, shape: tuple, layout: str) -> tuple[str, np.ndarray]:
    """A value stored as rows or with channels last, far enough from zero that the mean matters."""
    x = net.feed((net.rng.standard_normal(shape) + 0.7).astype(np.float32))
    wide = net.feeds[x].astype(np.float64)
    if layout == "rows":
        return x, wide
    return net("MaxPool", x, kernel_shape=[1] * (len(shape) - 2)), wide


def tables(net: Net, channels: int, count: int, rank: int) -> tuple[list[str], list[np.ndarray]]:
    names = [net.normal(channels) for _ in range(count)]
    return names, [net.initializers[n].astype(np.float64).reshape(-1, *[1] * (rank - 2)) for n in names]


@pytest.mark.parametrize("layout", ["rows", "channels last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_s0(groups: int, shape: tuple, layout: str):
    net = Net(1)
    x, wide = source(net, shape, layout)
    if shape[1] % groups:
        groups = shape[1]
    names, (v, gamma, beta) = tables(net, shape[1], 3, len(shape))
    parts = wide.reshape(shape[0], groups, -1)
    deviation = np.repeat(np.sqrt(parts.var(2) + 1e-3), shape[1] // groups, 1).reshape(*shape[:2], *[1] * (len(shape) - 2))
    expected = wide / (1 + np.exp(-v * wide)) / deviation * gamma + beta
    found = run(net, "EvoNormS0", x, *names, groups=groups, epsilon=1e-3)
    compare(found, expected, 2e-6)
    np.testing.assert_array_equal(found, run(net, "EvoNormS0", x, *names, threads=2, groups=groups, epsilon=1e-3))


@pytest.mark.parametrize("layout", ["rows", "channels last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch", [False, True])
def test_b0(batch: bool, shape: tuple, layout: str):
    net = Net(2)
    x, wide = source(net, shape, layout)
    names, (v, gamma, beta) = tables(net, shape[1], 3, len(shape))
    pixels = tuple(range(2, len(shape)))
    variance = wide.var((0, *pixels), keepdims=True)[0]
    if not batch:
        names.append(net.constant(net.rng.uniform(0.01, 0.2, shape[1]).astype(np.float32)))
        variance = net.initializers[names[-1]].astype(np.float64).reshape(v.shape)
    bound = v * wide + np.sqrt(wide.var(pixels, keepdims=True) + 1e-3)
    expected = wide / np.maximum(np.sqrt(variance + 1e-3), bound) * gamma + beta
    assert (bound > np.sqrt(variance + 1e-3)).mean() > 0.1
    found = run(net, "EvoNormB0", x, *names, epsilon=1e-3)
    compare(found, expected, 2e-6)
    np.testing.assert_array_equal(found, run(net, "EvoNormB0", x, *names, threads=2, epsilon=1e-3))


@pytest.mark.parametrize("layout", ["rows", "channels last"])
def test_missing_tables(layout: str):
    net = Net(3)
    x, wide = source(net, (2, 6, 5, 4), layout)
    deviation = np.sqrt(wide.reshape(2, 3, -1).var(2) + 1e-5).repeat(2, 1).reshape(2, 6, 1, 1)
    compare(run(net, "EvoNormS0", x, None, None, None, groups=3, epsilon=1e-5), wide / (1 + np.exp(-wide)) / deviation, 2e-6)
    gamma = net.normal(6)
    bound = np.maximum(np.sqrt(wide.var((0, 2, 3), keepdims=True) + 1e-3), np.sqrt(wide.var((2, 3), keepdims=True) + 1e-3))
    expected = wide / bound * net.initializers[gamma].reshape(6, 1, 1)
    compare(run(net, "EvoNormB0", x, None, gamma, None, None, epsilon=1e-3), expected, 2e-6)


@pytest.mark.parametrize("shape, axis", [((4, 7), -1), ((2, 5, 96), -1), ((2, 3, 4, 5), 1), ((1, 64, 3, 5), 2)])
@pytest.mark.parametrize("affine", [0, 1, 2])
def test_layer_norm_of_unbiased_deviation(affine: int, shape: tuple, axis: int):
    net = Net(4)
    x, wide = source(net, shape, "rows")
    axis %= len(shape)
    names = [net.normal(*shape[axis:]) for _ in range(affine)]
    axes = tuple(range(axis, len(shape)))
    expected = (wide - wide.mean(axes, keepdims=True)) / (wide.std(axes, ddof=1, keepdims=True) + 1e-2)
    for name, combine in zip(names, (np.multiply, np.add)):
        expected = combine(expected, net.initializers[name].astype(np.float64))
    compare(run(net, "LayerNormStd", x, *names, axis=axis, epsilon=1e-2), expected, 2e-6)
