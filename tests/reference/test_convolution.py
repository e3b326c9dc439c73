"""Conv and ConvTranspose in float64 against torch's float64, over their attributes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_harness import close, run_node

from infold.errors import ShapeError
from infold.reference import convolution

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@st.composite
def geometry(draw):
    rank = draw(st.integers(1, 3))
    each = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    group, into, out = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return {
        "rank": rank,
        "kernel": each(1, 3),
        "strides": each(1, 3),
        "dilations": each(1, 2),
        "group": group,
        "pads": each(0, 2),
        "into": into,
        "out": out,
        "spatial": each(5, 8),
        "bias": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=60, deadline=None)
@given(geometry())
def test_conv_matches_torch(g):
    rng = np.random.default_rng(g["seed"])
    x = rng.standard_normal((2, g["group"] * g["into"], *g["spatial"]))
    w = rng.standard_normal((g["group"] * g["out"], g["into"], *g["kernel"]))
    b = rng.standard_normal(len(w)) if g["bias"] else None
    y = run_node(
        "Conv",
        x,
        w,
        b,
        strides=g["strides"],
        dilations=g["dilations"],
        group=g["group"],
        pads=g["pads"] * 2,
        kernel_shape=g["kernel"],
    )
    close(
        y,
        CONV[g["rank"]](
            torch.tensor(x),
            torch.tensor(w),
            None if b is None else torch.tensor(b),
            g["strides"],
            g["pads"],
            g["dilations"],
            g["group"],
        ),
    )


@settings(max_examples=60, deadline=None)
@given(geometry(), st.data())
def test_conv_transpose_matches_torch(g, data):
    rng = np.random.default_rng(g["seed"])
    x = rng.standard_normal((2, g["group"] * g["into"], *g["spatial"]))
    w = rng.standard_normal((g["group"] * g["into"], g["out"], *g["kernel"]))
    b = rng.standard_normal(g["group"] * g["out"]) if g["bias"] else None
    extra = [data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(g["strides"], g["dilations"])]
    y = run_node(
        "ConvTranspose",
        x,
        w,
        b,
        strides=g["strides"],
        dilations=g["dilations"],
        group=g["group"],
        pads=g["pads"] * 2,
        output_padding=extra,
    )
    close(
        y,
        TRANSPOSE[g["rank"]](
            torch.tensor(x),
            torch.tensor(w),
            None if b is None else torch.tensor(b),
            g["strides"],
            g["pads"],
            extra,
            g["group"],
            g["dilations"],
        ),
    )


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("size, kernel, stride", [(7, 3, 2), (8, 3, 2), (8, 4, 3), (9, 2, 1)])
def test_auto_pad(auto_pad, size, kernel, stride):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, size, size)), rng.standard_normal((3, 2, kernel, kernel))
    total = 0 if auto_pad == "VALID" else max((-(-size // stride) - 1) * stride + kernel - size, 0)
    begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
    padded = np.pad(x, [(0, 0), (0, 0)] + [(begin, total - begin)] * 2)
    close(
        run_node("Conv", x, w, auto_pad=auto_pad, strides=[stride] * 2),
        F.conv2d(torch.tensor(padded), torch.tensor(w), stride=stride),
    )


@pytest.mark.parametrize(
    "attributes, begin",
    [
        ({"output_shape": [10, 8]}, (1, 1)),
        ({"output_shape": [1, 3, 10, 8]}, (1, 1)),
        ({"output_shape": [10, 8], "auto_pad": "SAME_UPPER"}, (0, 1)),
        ({"auto_pad": "SAME_LOWER"}, (1, 1)),
    ],
)
def test_conv_transpose_chooses_pads_for_the_output_shape(attributes, begin):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 5, 4)), rng.standard_normal((2, 3, 3, 3))
    full = F.conv_transpose2d(torch.tensor(x), torch.tensor(w), stride=2)  # 11 x 9
    rows, columns = begin
    if "SAME_UPPER" in attributes.values():
        rows = columns = 0  # one surplus cell each way: half of it, rounded down, before
    y = run_node("ConvTranspose", x, w, strides=[2, 2], **attributes)
    close(y, full[:, :, rows : rows + 10, columns : columns + 8])


def test_large_inputs_go_in_slices_with_the_same_result(monkeypatch):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 9, 7)), rng.standard_normal((6, 2, 3, 3))
    whole = run_node("Conv", x, w, group=2, pads=[1] * 4)
    monkeypatch.setattr(convolution, "_COLUMNS_BYTES", 1)
    close(run_node("Conv", x, w, group=2, pads=[1] * 4), whole)


@pytest.mark.parametrize(
    "x, w, attributes",
    [
        ((1, 3, 8, 8), (4, 2, 3, 3), {}),
        ((1, 4, 8, 8), (3, 2, 3, 3), {"group": 2}),
        ((1, 2, 8), (4, 2, 3, 3), {}),
        ((1, 2, 2, 2), (4, 2, 3, 3), {}),
        ((1, 2, 8, 8), (4, 2, 3, 3), {"kernel_shape": [5, 5]}),
        ((1, 2, 8, 8), (4, 2, 3, 3), {"strides": [1]}),
    ],
)
def test_shapes_that_do_not_fit(x, w, attributes):
    with pytest.raises(ShapeError, match=r"'y0' \(Conv\)"):
        run_node("Conv", np.ones(x), np.ones(w), **attributes)
