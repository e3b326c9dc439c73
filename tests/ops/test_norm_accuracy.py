"""Every normalisation by statistics of the data stays within 2e-6 of NumPy in float64, relative to the largest result: odd numbers
of channels, one to five dimensions, one image and 64, rows and channels last, on every instruction set."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from session_harness import Net, compare, native_function, session

from infold import _native

GROUPS = {3: 1, 15: 3, 35: 7, 67: 1}  # by number of channels
PIXELS = [(), (9,), (5, 7), (2, 3, 5)]
EPSILON = 1e-3


def standardized(x: np.ndarray, axes: tuple[int, ...], centered: bool = True) -> np.ndarray:
    return (x - centered * x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + EPSILON)


def expected(kind: str, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, v: np.ndarray) -> np.ndarray:
    """x: images x channels x pixels; gamma, beta, v: channels x 1."""
    images, channels = x.shape[:2]
    if kind == "EvoNormB0":
        deviation, bound = np.sqrt(x.var((0, 2), keepdims=True) + EPSILON), v * x + np.sqrt(x.var(2, keepdims=True) + EPSILON)
        return x / np.maximum(deviation, bound) * gamma + beta
    if kind == "BatchNormalization":
        return standardized(x, (0, 2)) * gamma + beta
    groups = channels if kind == "InstanceNormalization" else GROUPS[channels]
    grouped = x.reshape(images, groups, -1)
    if kind == "EvoNormS0":
        return standardized(grouped, (2,), centered=False).reshape(x.shape) / (1 + np.exp(-v * x)) * gamma + beta
    return standardized(grouped, (2,)).reshape(x.shape) * gamma + beta


@pytest.mark.parametrize("isa", _native.isa_names())
@pytest.mark.parametrize("images", [1, 64])
@pytest.mark.parametrize("kind", ["BatchNormalization", "InstanceNormalization", "GroupNormalization", "EvoNormS0", "EvoNormB0"])
def test_images(kind: str, images: int, isa: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INFOLD_ISA", isa)
    for channels, groups in GROUPS.items():
        for pixels in PIXELS:
            if not pixels and (kind not in ("BatchNormalization", "GroupNormalization") or images * channels // groups < 3):
                continue
            for layout in ("rows", "channels last") if pixels else ("rows",):
                _one(kind, (images, channels, *pixels), groups, layout)


def _one(kind: str, shape: tuple[int, ...], groups: int, layout: str) -> None:
    net = Net(sum(shape))
    x = net.feed((net.rng.standard_normal(shape) + 3).astype(np.float32))
    names = [net.normal(shape[1]) for _ in range(3)]
    data = net.feeds[x].astype(np.float64).reshape(*shape[:2], prod(shape[2:]))
    wanted = expected(kind, data, *(net.initializers[name].astype(np.float64)[:, None] for name in names)).reshape(shape)
    if layout == "channels last":
        x = net("MaxPool", x, kernel_shape=[1] * (len(shape) - 2))
    trivial = shape[0] == 1 and len(shape) == 2  # the variance of one number
    if kind.startswith("Evo"):
        gamma, beta, v = names
        more = {"groups": groups} if kind == "EvoNormS0" else {}
        compare(native_function(net, kind, x, v, gamma, beta, epsilon=EPSILON, **more), wanted, 2e-6)
        return
    more = {"BatchNormalization": {"training_mode": 1}, "GroupNormalization": {"num_groups": groups}}.get(kind, {})
    running = [net.normal(shape[1]), net.positive(shape[1])] if kind == "BatchNormalization" else []
    y = net(kind, x, *names[:2], *running, epsilon=EPSILON, **more)
    subject = session(net.model(y))
    (found,) = subject.run(None, net.feeds)
    assert not subject.report.fallbacks
    compare(found, wanted, 2e-6, trivial=trivial)


@pytest.mark.parametrize("isa", _native.isa_names())
@pytest.mark.parametrize("rows", [1, 64])
def test_layer_norm(rows: int, isa: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INFOLD_ISA", isa)
    for length in (3, 15, 67, 1025, 2049):
        for outer in [(rows,), *([()] if rows == 1 else []), (rows, 3), (rows, 2, 3), (rows, 2, 1, 3)]:
            net = Net(length, opset=17)
            x = net.feed((net.rng.standard_normal((*outer, length)) + 3).astype(np.float32))
            gamma, beta = net.normal(length), net.normal(length)
            wanted = standardized(net.feeds[x].astype(np.float64), (-1,)) * net.initializers[gamma] + net.initializers[beta]
            subject = session(net.model(net("LayerNormalization", x, gamma, beta, epsilon=EPSILON)))
            compare(subject.run(None, net.feeds)[0], wanted, 2e-6)
            assert not subject.report.fallbacks
