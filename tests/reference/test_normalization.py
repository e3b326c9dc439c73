"""Normalisations against torch's float64 and the specification's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_harness import close, run_node

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 5, 6)) * 2 + 1
SCALE, BIAS, MEAN = RNG.standard_normal((3, 4))
VAR = RNG.uniform(0.5, 2, 4)


def torch_batch_norm(training=False, momentum=0.9):
    mean, var = torch.tensor(MEAN), torch.tensor(VAR)
    y = F.batch_norm(torch.tensor(X), mean, var, torch.tensor(SCALE), torch.tensor(BIAS), training, 1 - momentum, 1e-3)
    return y, mean, var


@pytest.mark.parametrize(
    "opset, attributes",
    [
        (1, {"is_test": 1, "spatial": 1}),
        (6, {"is_test": 1}),
        (7, {}),
        (7, {"spatial": 1, "momentum": 0.1}),
        (9, {"momentum": 0.1}),
        (9, {}),
        (13, {"momentum": 0.99}),
        (14, {"momentum": 0.1}),
        (15, {"training_mode": 0}),
        (22, {}),
    ],
)
def test_batch_norm_inference_uses_the_stored_statistics(opset, attributes):
    y = run_node("BatchNormalization", X, SCALE, BIAS, MEAN, VAR, opset=opset, epsilon=1e-3, **attributes)
    close(y, torch_batch_norm()[0], 1e-6)  # the attribute epsilon is a float32
    exact = (X - MEAN[:, None, None]) / np.sqrt(VAR + np.float64(np.float32(1e-3)))[:, None, None]
    close(y, exact * SCALE[:, None, None] + BIAS[:, None, None])


@pytest.mark.parametrize("opset", [14, 15, 22])
@pytest.mark.parametrize("momentum", [0.9, 0.25])
def test_batch_norm_training(opset, momentum):
    y, mean, var = run_node(
        "BatchNormalization", X, SCALE, BIAS, MEAN, VAR, opset=opset, outputs=3, training_mode=1, momentum=momentum, epsilon=1e-3
    )
    close(y, torch_batch_norm(training=True)[0], 1e-6)
    close(mean, MEAN * momentum + X.mean(axis=(0, 2, 3)) * (1 - momentum), 1e-6)
    close(var, VAR * momentum + X.var(axis=(0, 2, 3)) * (1 - momentum), 1e-6)  # ONNX: the population's variance


def test_batch_norm_training_of_old_opsets_has_five_outputs():
    y, mean, var, saved_mean, saved_var = run_node(
        "BatchNormalization", X, SCALE, BIAS, MEAN, VAR, opset=9, outputs=5, epsilon=1e-3
    )
    close(y, torch_batch_norm(training=True)[0], 1e-6)
    close(mean, MEAN * 0.9 + X.mean(axis=(0, 2, 3)) * 0.1, 1e-6)
    close(saved_mean, X.mean(axis=(0, 2, 3)))
    close(saved_var, X.var(axis=(0, 2, 3)))
    assert not np.allclose(var, VAR)


def test_batch_norm_per_cell():
    scale, bias, mean = RNG.standard_normal((3, *X.shape[1:]))
    var = RNG.uniform(0.5, 2, X.shape[1:])
    y = run_node("BatchNormalization", X, scale, bias, mean, var, opset=7, spatial=0, epsilon=0.0)
    close(y, (X - mean) / np.sqrt(var) * scale + bias)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("shape", [(2, 9, 4, 5), (5, 6, 3)])
def test_lrn(size, shape):
    x = RNG.standard_normal(shape)
    y = run_node("LRN", x, size=size, alpha=0.5, beta=0.75, bias=2.0)
    low, high = (size - 1) // 2, size - 1 - (size - 1) // 2
    expected = np.empty_like(x)
    for c in range(shape[1]):
        squares = (x[:, max(0, c - low) : c + high + 1] ** 2).sum(axis=1)
        expected[:, c] = x[:, c] / (2 + 0.5 / size * squares) ** 0.75
    close(y, expected)
    if size % 2:
        close(y, F.local_response_norm(torch.tensor(x), size, 0.5, 0.75, 2.0))


@pytest.mark.parametrize("opset", [18, 21])
def test_group_norm(opset):
    scale, bias = RNG.standard_normal((2, 4))
    if opset == 18:
        scale, bias = scale[:2].repeat(2), bias[:2].repeat(2)
    y = run_node(
        "GroupNormalization",
        X,
        *((scale[::2], bias[::2]) if opset == 18 else (scale, bias)),
        opset=opset,
        num_groups=2,
        epsilon=2.0**-10,
    )
    close(y, F.group_norm(torch.tensor(X), 2, torch.tensor(scale), torch.tensor(bias), 2.0**-10))


def test_other_normalisations_keep_float64():
    scale, bias = RNG.standard_normal((2, 6))
    close(
        run_node("LayerNormalization", X, scale, bias, epsilon=2.0**-10),
        F.layer_norm(torch.tensor(X), [6], torch.tensor(scale), torch.tensor(bias), 2.0**-10),
    )
    close(
        run_node("InstanceNormalization", X, SCALE, BIAS, epsilon=2.0**-10),
        F.instance_norm(torch.tensor(X), None, None, torch.tensor(SCALE), torch.tensor(BIAS), True, 0.1, 2.0**-10),
    )
    close(run_node("RMSNormalization", X, scale, epsilon=2.0**-10), F.rms_norm(torch.tensor(X), [6], torch.tensor(scale), 2.0**-10))
    deviation = X - X.mean(axis=(0, 2, 3), keepdims=True)
    close(run_node("MeanVarianceNormalization", X), deviation / np.sqrt((deviation**2).mean(axis=(0, 2, 3), keepdims=True)), 1e-8)
    close(run_node("LpNormalization", X, axis=1, p=2), F.normalize(torch.tensor(X), dim=1))
