"""Pad with zeros goes into Conv and counting AveragePool, and only where that is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from passes_harness import fold_and_compare, model, normal, operators


@given(
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.integers(1, 2),
    st.booleans(),
)
def test_into_convolutions(pads, own, stride, axes):
    rng = np.random.default_rng(0)
    given_pads = pads if axes else [0, 0, *pads[:2], 0, 0, *pads[2:]]
    subject = model(
        f"""g (float[N,2,5,6] x) => (float[N,4,H,W] y) {{ p = Pad(x, pads, zero{", axes" if axes else ""})
        y = Conv <pads = {own}, strides = [{stride}, {stride}]> (p, w) }}""",
        {"w": normal(rng, 4, 2, 3, 2), "pads": np.array(given_pads), "zero": np.float32(0), "axes": np.array([-2, 3])},
        opset=18,
    )
    result, _ = fold_and_compare(subject, {"x": normal(rng, 2, 2, 5, 6)})
    assert operators(result) == {"Conv": 1}
    assert list(result.graph[0].attributes["pads"].as_ints()) == [a + b for a, b in zip(pads, own)]


@pytest.mark.parametrize(
    "text, opset",
    [
        ("p = Pad <pads = [0, 0, 1, 0, 0, 0, 0, 2]> (x) y = Conv(p, w)", 10),
        ('p = Pad <mode = "constant", pads = [0, 0, 1, 0, 0, 0, 0, 2], value = 0.0> (x) y = Conv(p, w)', 7),
        ('p = Pad(x, pads) y = Conv <auto_pad = "VALID"> (p, w)', 17),
        ("p = Pad(x, pads) a = Conv(p, w) b = Conv(p, v) y = Add(a, b)", 17),
        ("p = Pad(x, pads) y = AveragePool <kernel_shape = [3, 3]> (p)", 17),
        (
            "p = Pad(x, pads) y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, "
            "0], count_include_pad = 1> (p)",
            17,
        ),
    ],
)
def test_other_forms(text, opset):
    rng = np.random.default_rng(0)
    subject = model(
        f"g (float[2,4,5,6] x) => (float[2,4,H,W] y) {{ {text} }}",
        {"w": normal(rng, 4, 4, 3, 3), "v": normal(rng, 4, 4, 3, 3), "pads": np.array([0, 0, 1, 0, 0, 0, 0, 2])},
        opset=opset,
    )
    result, _ = fold_and_compare(subject, {"x": normal(rng, 2, 4, 5, 6)})
    assert operators(result)["Pad"] == 0


@pytest.mark.parametrize(
    "text",
    [
        'p = Pad <mode = "reflect"> (x, pads) y = Conv(p, w)',
        "p = Pad(x, pads, half) y = Conv(p, w)",
        "p = Pad(x, channels) y = Conv(p, w)",
        "p = Pad(x, crop) y = Conv(p, w)",
        'p = Pad(x, pads) y = Conv <auto_pad = "SAME_UPPER"> (p, w)',
        "p = Pad(x, pads) y = ConvTranspose(p, w)",
        "p = Pad(x, pads) y = MaxPool <kernel_shape = [3, 3]> (p)",
        "p = Pad(x, pads) y = AveragePool <kernel_shape = [2, 2]> (p)",
        "p = Pad(x, pads) y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 0]> (p)",
        "p = Pad(x, pads) y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (p)",
        "p = Pad(x, runtime) y = Conv(p, w)",
    ],
)
def test_what_stays(text):
    rng = np.random.default_rng(0)
    pads = np.array([0, 0, 1, 0, 0, 0, 0, 2])
    subject = model(
        f"g (float[2,4,5,6] x, int64[8] runtime) => (float[2,C,H,W] y) {{ {text} }}",
        {
            "w": normal(rng, 4, 5 if "channels" in text else 4, 3, 3),
            "pads": pads,
            "half": np.float32(0.5),
            "channels": np.array([0, 1, 0, 0, 0, 0, 0, 0]),
            "crop": np.array([0, 0, -1, 0, 0, 0, 0, 0]),
        },
    )
    result, _ = fold_and_compare(subject, {"x": normal(rng, 2, 4, 5, 6), "runtime": pads})
    assert operators(result) == operators(subject)


def test_a_pad_that_is_read_elsewhere_stays_for_that_reader():
    rng = np.random.default_rng(0)
    subject = model(
        "g (float[2,4,5,6] x) => (float[2,4,4,6] y, float[2,4,6,8] r) { p = Pad(x, pads) y = Conv(p, w) r = Relu(p) }",
        {"w": normal(rng, 4, 4, 3, 3), "pads": np.array([0, 0, 1, 0, 0, 0, 0, 2])},
    )
    result, _ = fold_and_compare(subject, {"x": normal(rng, 2, 4, 5, 6)})
    assert operators(result) == {"Pad": 1, "Conv": 1, "Relu": 1} and result.graph[1].inputs[0].name == "x"
