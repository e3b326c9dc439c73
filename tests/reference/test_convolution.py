"""Conv and ConvTranspose in float64 against torch's float64, over their attributes."""

from __future__ import annotations

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_harness import close, generators, run_node, tensors, windows

from infold.errors import ShapeError
from infold.reference import convolution

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@st.composite
def convolutions(draw, transposed=False):
    """ONNX's attributes, x, w and b or None."""
    each = draw(windows())
    group, into, out, rng = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(generators)
    if transposed:
        limits = [max(s, d) - 1 for s, d in zip(each.strides, each.dilations)]
        each.attributes["output_padding"] = [draw(st.integers(0, limit)) for limit in limits]
    filters = (group * into, out) if transposed else (group * out, into)
    b = rng.standard_normal(group * out) if draw(st.booleans()) else None
    x, w = rng.standard_normal((2, group * into, *each.spatial)), rng.standard_normal((*filters, *each.kernel))
    return each, group, x, w, b


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_conv_matches_torch(g):
    each, group, x, w, b = g
    y = run_node("Conv", x, w, b, group=group, **each.attributes)
    expected = CONV[len(each.kernel)](*tensors(x, w, b), each.strides, each.pads, each.dilations, group)
    close(y, expected)


@settings(max_examples=60, deadline=None)
@given(convolutions(transposed=True))
def test_conv_transpose_matches_torch(g):
    each, group, x, w, b = g
    y = run_node("ConvTranspose", x, w, b, group=group, **each.attributes)
    extra = each.attributes["output_padding"]
    close(y, TRANSPOSE[len(each.kernel)](*tensors(x, w, b), each.strides, each.pads, extra, group, each.dilations))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("size, kernel, stride", [(7, 3, 2), (8, 3, 2), (8, 4, 3), (9, 2, 1)])
def test_auto_pad(auto_pad, size, kernel, stride):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, size, size)), rng.standard_normal((3, 2, kernel, kernel))
    total = 0 if auto_pad == "VALID" else max((-(-size // stride) - 1) * stride + kernel - size, 0)
    begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
    padded = np.pad(x, [(0, 0), (0, 0)] + [(begin, total - begin)] * 2)
    close(run_node("Conv", x, w, auto_pad=auto_pad, strides=[stride] * 2), F.conv2d(*tensors(padded, w), stride=stride))


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
    full = F.conv_transpose2d(*tensors(x, w), stride=2)  # 11 x 9
    rows, columns = begin
    if "SAME_UPPER" in attributes.values():
        rows = columns = 0  # one surplus cell each way: half of it, rounded down, before
    y = run_node("ConvTranspose", x, w, strides=[2, 2], **attributes)
    close(y, full[:, :, rows : rows + 10, columns : columns + 8])


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_no_pictures(op):
    size = (3, 4) if op == "Conv" else (7, 8)
    assert run_node(op, np.ones((0, 4, 5, 6)), np.ones((4, 2, 3, 3)), group=2).shape == (0, 4, *size)


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
