"""Local response normalisation against float64."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import normal, refusal, refused, rows, run

from infold import _native

F32 = np.float32


def lrn(isa, x, before, after, beta, **how):
    params = {**rows(x), "channels": x.shape[1], "before": before, "after": after, "scale": 0.02, "bias": 1.5, "beta": beta}
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


@refused({
    0: [{}],
    1: [{"before": 65}, {"after": -1}],
    2: [{"channels": 9}, {"channels": 2**62}, {"n": [1] * 3 + [5]}]
})
def test_check(change, status, isa):
    x = np.zeros((4, 8), F32)
    assert refusal("lrn", isa, {**rows(x), "channels": 8, "before": 2, "after": 2, **change}, **{"in": x, "out": x}) == status
