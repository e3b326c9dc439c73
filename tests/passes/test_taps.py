"""Taps that only ever meet padding."""

from __future__ import annotations

import numpy as np
import pytest
from exports import export
from passes_harness import constant, fold, fold_and_compare, model, normal, operators


@pytest.mark.parametrize("size, dilation, pads, kernel", [
    ((6, 7), 9, (9, 9, 9, 9), (1, 1)),  # only the centre
    ((6, 12), 9, (9, 9, 9, 9), (1, 3)),
    ((6, 7), 5, (5, 5, 5, 5), (3, 3)),  # every tap meets a pixel somewhere
    ((6, 7), 9, (18, 18, 0, 0), (1, 1)),  # the last tap
    ((6, 7), 9, (8, 8, 8, 8), (3, 3)),  # what is left would need negative padding
])  # fmt: skip
@pytest.mark.parametrize("stride", [1, 2])
def test_dilated_beyond_the_image(size, dilation, pads, kernel, stride):
    rng = np.random.default_rng(0)
    subject = model(
        f"g (float[2,3,{size[0]},{size[1]}] x) => (float[2,4,h,w] y) {{ y = Conv <pads = {list(pads)},"
        f" dilations = [{dilation}, {dilation}], strides = [{stride}, {stride}]> (x, w, b) }}",
        {"w": normal(rng, 4, 3, 3, 3), "b": normal(rng, 4)},
    )
    result = fold_and_compare(subject, {"x": normal(rng, 2, 3, *size)})[0]
    if kernel != (3, 3) or stride == 1:
        assert constant(result, result.graph.node(0).inputs[1].name).shape[2:] == kernel


def test_weights_that_are_not_finite_stay():
    weight = normal(np.random.default_rng(0), 4, 3, 3)
    weight[0, 0, 0] = np.inf
    subject = model("g (float[1,3,5] x) => (float[1,4,5] y) { y = Conv <pads = [9, 9], dilations = [9]> (x, w) }", {"w": weight})
    result = fold(subject)[0]
    assert constant(result, result.graph.node(0).inputs[1].name).shape == (4, 3, 3)


def test_atrous_pyramid():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            convs = [nn.Conv2d(4, 4, 3, padding=rate, dilation=rate, bias=False) for rate in (2, 8, 12)]
            self.levels = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU()) for conv in convs)

        def forward(self, x):
            return torch.cat([level(x) for level in self.levels], 1)

    torch.manual_seed(0)
    subject = export(Pyramid().eval(), torch.randn(2, 4, 8, 8), "script", 17, dynamic=(0,))
    result = fold_and_compare(subject, {"x": normal(np.random.default_rng(0), 2, 4, 8, 8)})[0]
    assert operators(result) == {"Conv": 3, "Relu": 3, "Concat": 1}
    assert sorted(node.inputs[1].shape[2] for node in result.graph if node.op_type == "Conv") == [1, 1, 3]


def test_a_declared_size_that_is_false_cuts_nothing():
    rng = np.random.default_rng(0)
    subject = model(
        "g (float[1,3,9,9] x) => (float[1,4,9,9] y) <float[1,3,2,2] r>"
        " { r = Relu (x)  y = Conv <pads = [3, 3, 3, 3], dilations = [3, 3]> (r, w) }", {"w": normal(rng, 4, 3, 3, 3)})
    result = fold(subject)[0]
    assert constant(result, result.graph.node(1).inputs[1].name).shape == (4, 3, 3, 3)
