"""Torch7's pooling and window normalisation against torch in float64, rounding down and up, sizes known and unknown."""

from __future__ import annotations

import numpy as np
import pytest
from torch7_networks import random
from torch7_writer import check, module, tensors, window

torch = pytest.importorskip("torch", reason="it is the oracle")
F = torch.nn.functional

POOLINGS = [
    dict(k=2, d=2),
    dict(k=3, d=2),
    dict(k=3, d=2, pad=1),
    dict(k=3, d=3, pad=1),
    dict(k=(2, 3), d=(3, 2)),
    dict(k=5, d=4, pad=2),
]


def pooling(name, k, d, pad=0, ceil=False, **fields):
    return module(name, **window(*(k if isinstance(k, tuple) else (k, k)), d=d, pad=pad), ceil_mode=ceil, **fields)


@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("size", [(7, 7), (8, 10), (9, 12)], ids=str)
@pytest.mark.parametrize("ceil", [False, True], ids=["floor", "ceil"])
@pytest.mark.parametrize("given", POOLINGS, ids=str)
def test_pooling(given, ceil, size, known):
    x = random(2, 3, *size)
    shape = x.shape if known else ("N", 3, "H", "W")
    [t], kernel, stride, pad = tensors(x), given["k"], given["d"], given.get("pad", 0)
    expected = F.max_pool2d(t, kernel, stride, pad, ceil_mode=ceil).numpy()
    check(pooling("SpatialMaxPooling", **given, ceil=ceil), x, expected, shape=shape)
    for counted in (True, False):
        subject = pooling("SpatialAveragePooling", **given, ceil=ceil, divide=True, count_include_pad=counted)
        check(subject, x, F.avg_pool2d(t, kernel, stride, pad, ceil, counted).numpy(), shape=shape)


def test_average_pooling_without_divide_is_a_sum():
    x = random(1, 2, 6, 6)
    sums = F.avg_pool2d(tensors(x)[0], 2, 2).numpy() * 4
    check(pooling("SpatialAveragePooling", 2, 2), x, sums, shape=x.shape)
    check(pooling("SpatialAveragePooling", 2, 2, divide=False), x, sums, shape=x.shape)
    check(
        pooling("cudnn.SpatialAveragePooling", 2, 2, mode="CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING"), x, sums / 4, shape=x.shape
    )


def test_inn_pooling_rounds_up():
    x = random(1, 2, 7, 8)
    subject = module("inn.SpatialMaxPooling", **window(3, 3, d=2))
    check(subject, x, F.max_pool2d(tensors(x)[0], 3, 2, ceil_mode=True).numpy(), shape=x.shape)


def test_volumetric_and_temporal_pooling():
    x = random(1, 2, 4, 6, 5)
    places = {"d": (2, 1, 2), "pad": (0, 1, 0)}
    expected = F.max_pool3d(tensors(x)[0], (2, 3, 2), *places.values()).numpy()
    check(module("VolumetricMaxPooling", **window(2, 3, 2, **places)), x, expected, shape=x.shape)
    frames = random(2, 9, 4)
    expected = F.max_pool1d(tensors(frames)[0].transpose(1, 2), 3, 2).transpose(1, 2).numpy()
    check(module("TemporalMaxPooling", **window(3, d=2)), frames, expected, shape=frames.shape)


@pytest.mark.parametrize("target", [(1, 1), (2, 3), (5, 4)], ids=str)
def test_adaptive_pooling(target):
    x = random(2, 3, 8, 9)
    fields = dict(H=target[0], W=target[1])
    check(module("SpatialAdaptiveMaxPooling", **fields), x, F.adaptive_max_pool2d(tensors(x)[0], target).numpy(), shape=x.shape)
    check(module("SpatialAdaptiveAveragePooling", **fields), x, F.adaptive_avg_pool2d(tensors(x)[0], target).numpy(), shape=x.shape)


@pytest.mark.parametrize("name, key", [("SpatialCrossMapLRN", "k"), ("cudnn.SpatialCrossMapLRN", "K")])
def test_local_response_norm(name, key):
    x = random(2, 9, 4, 5) * 4
    subject = module(name, size=5, alpha=0.3, beta=0.6, **{key: 2})
    check(subject, x, F.local_response_norm(tensors(x)[0], 5, 0.3, 0.6, 2).numpy(), shape=x.shape)


@pytest.mark.parametrize("power", [1, 2, 3, float("inf")])
def test_normalize(power):
    x = random(3, 8)
    norm = (
        np.abs(x.astype(np.float64)).max(1, keepdims=True) + 1e-3
        if power == np.inf
        else ((np.abs(x.astype(np.float64)) ** power).sum(1, keepdims=True) + 1e-3) ** (1 / power)
    )
    check(module("Normalize", p=power, eps=1e-3), x, x / norm, shape=x.shape)
