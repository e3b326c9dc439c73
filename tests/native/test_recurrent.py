"""The driver of RNN, LSTM and GRU on guarded buffers, every tail of a vector."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import refusal, refused, run
from test_conv import packed

from infold import _native

F32 = np.float32
STEPS, BATCH = 3, 2


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, r, h, cell):
    """The outputs of all steps; r: (4, hidden, hidden), by gate and output."""
    outputs = []
    for step in x.astype(float):
        i, o, f, g = (step[:, gate] + h @ r[gate].T for gate in range(4))
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(cell)
        outputs.append(h)
    return np.array(outputs)


def case(hidden: int, isa: str):
    rng = np.random.default_rng(hidden)
    x, r = rng.standard_normal((STEPS, BATCH, 4, hidden)).astype(F32), rng.standard_normal((4, hidden, hidden)).astype(F32)
    h, cell = rng.standard_normal((2, BATCH, hidden)).astype(F32)
    w = np.stack([packed(r[gate].T, isa) for gate in range(4)])
    params = {"kind": 1, "steps": STEPS, "batch": BATCH, "directions": 1, "hidden": hidden, "in_step": x[0].size,
              "in_batch": x[0, 0].size, "out_step": BATCH * hidden, "out_batch": hidden, "h_batch": hidden, "w_gate": w[0].size,
              "act": [_native.ACTS[name] for name in ("SIGMOID", "TANH", "TANH")] * 2}
    arrays = {"in": x, "w": w, "h": h, "cell": cell, "out": np.zeros((STEPS, BATCH, hidden), F32)}
    return params, arrays | {"stage": np.zeros((BATCH, 5 * hidden), F32)}, lstm(x, r, h, cell)


@pytest.mark.parametrize("hidden", [*range(1, 35), 64, 65])
def test_lstm(hidden, isa, side):
    params, arrays, expected = case(hidden, isa)
    for threads in (1, 2):
        got = run("recurrent", isa, params, threads=threads, side=side, constants=("w",), **arrays)
        np.testing.assert_allclose(got["out"], expected, atol=2e-5)
        np.testing.assert_array_equal(got["h"], got["out"][-1])


@refused({
    0: [{}],
    1: [{"kind": 4}, {"directions": 3}, {"hidden": 0}, {"clip": -1.0}, {"act": [99] * 6}, {"act": [_native.ACTS["PRELU"]] * 6},
        {"hidden": 2**40}],
    2: [{"hidden": 18}, {"steps": 4}, {"batch": 2**62}, {"out_step": -1}, {"w_gate": 2**62}, {"directions": 2}]
})
def test_check(change, status, isa):
    params, arrays, _ = case(17, isa)
    assert refusal("recurrent", isa, params | change, **arrays) == status
