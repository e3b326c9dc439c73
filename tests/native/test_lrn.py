"""Local response normalisation against float64."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import dims, normal, refusal, run

from infold import _native

F32 = np.float32


def lrn(isa, x, before, after, beta, **how):
    rows, channels = x.shape
    params = {
        "n": dims([rows], 4, 1),
        "in_stride": dims([channels], 4, 0),
        "out_stride": dims([channels], 4, 0),
        "channels": channels,
        "before": before,
        "after": after,
        "scale": 0.02,
        "bias": 1.5,
        "beta": beta,
    }
    return run("lrn", isa, params, **{"in": x, "out": np.zeros_like(x)}, **how)["out"]


@pytest.mark.parametrize("before,after,beta", [(2, 2, 0.75), (1, 2, 0.6), (0, 0, 1.0), (64, 64, 0.75)])
def test_every_length(before, after, beta, isa, side):
    rng = np.random.default_rng(0)
    for channels in [*range(1, 3 * _native.isa_info(isa)["lanes"] + 2), 511, 512, 513, 1100]:
        x = normal(rng, 3, channels) * 3
        padded = np.pad(x.astype(np.float64) ** 2, ((0, 0), (before, after)))
        total = sum(padded[:, k : k + channels] for k in range(before + after + 1))
        got = lrn(isa, x, before, after, beta, side=side)
        np.testing.assert_allclose(got, x / (1.5 + 0.02 * total) ** beta, rtol=2e-6)
    one, two = (lrn(isa, normal(np.random.default_rng(1), 900, 40), before, after, beta, threads=t) for t in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 0),
        ({"before": 65}, 1),
        ({"after": -1}, 1),
        ({"channels": 9}, 2),
        ({"channels": 2**62}, 2),
        ({"n": [1] * 3 + [5]}, 2),
    ],
)
def test_check(change, status, isa):
    x = np.zeros((4, 8), F32)
    params = {"n": [1, 1, 1, 4], "in_stride": [0, 0, 0, 8], "out_stride": [0, 0, 0, 8], "channels": 8, "before": 2}
    params["after"] = 2
    assert refusal("lrn", isa, params | change, **{"in": x, "out": x}) == status
