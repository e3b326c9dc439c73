"""Col2Im: blocks that overlap, lie apart, reach over the border, of one to three dimensions."""

from __future__ import annotations

import io

import numpy as np
import pytest
from session_harness import Net, compare, session

import infold

CASES = {
    # name: (image, block, attributes, how many blocks there are)
    "overlapping": ((5, 6), (3, 2), {}, 15),
    "apart": ((6, 8), (2, 4), dict(strides=[2, 4]), 6),
    "padded": ((5, 7), (3, 3), dict(pads=[1, 1, 1, 1], strides=[2, 1]), 21),
    "uneven": ((6, 7), (2, 3), dict(pads=[0, 2, 1, 0], dilations=[2, 1], strides=[1, 2]), 20),
    "pixels-of-no-block": ((9, 4), (2, 2), dict(strides=[4, 3]), 2),
    "line": ((9,), (4,), dict(dilations=[2], pads=[1, 1]), 5),
    "volume": ((3, 4, 5), (2, 1, 3), dict(strides=[1, 2, 1]), 12),
}


def added_up(columns: np.ndarray, size: tuple, block: tuple, strides=None, dilations=None, pads=None) -> np.ndarray:
    """By the definition: number after number."""
    rank = len(size)
    strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
    padded = [n + pads[d] + pads[d + rank] for d, n in enumerate(size)]
    counts = [(n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(padded, block, dilations, strides)]
    image = np.zeros((len(columns), columns.shape[1] // int(np.prod(block)), *padded))
    columns = columns.reshape(*image.shape[:2], *block, *counts).astype(np.float64)
    for tap in np.ndindex(*block):
        for at in np.ndindex(*counts):
            place = tuple(t * d + a * s for t, d, a, s in zip(tap, dilations, at, strides))
            image[(..., *place)] += columns[(..., *tap, *at)]
    return image[(..., *(slice(pads[d], pads[d] + n) for d, n in enumerate(size)))]


@pytest.mark.parametrize("case", CASES)
def test_cases(case: str, like_onnxruntime):
    size, block, attributes, blocks = CASES[case]
    net = Net(1, 18)
    x = net.input(2, 3 * int(np.prod(block)), blocks)
    y = net("Col2Im", x, net.ints(*size), net.ints(*block), **attributes)
    subject = session(net.model(y))
    compare(subject.run(None, net.feeds)[0], added_up(net.feeds[x], size, block, **attributes), 1e-6)
    assert not subject.report.fallbacks
    if case != "line":  # where onnxruntime 1.31 is wrong
        like_onnxruntime(net, y)


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
def test_as_torch_exports_it():
    torch = pytest.importorskip("torch")

    class Patches(torch.nn.Module):
        """Patches, each weighted, put together again where they came from."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.rand(5 * 6, 1))

        def forward(self, x):
            # of paddings that differ this exporter writes an order that is not ONNX's
            patches = torch.nn.functional.unfold(x, (3, 2), padding=1, stride=(2, 1))
            return torch.nn.functional.fold(patches * self.weight, (8, 9), (3, 2), padding=1, stride=(2, 1)).relu()

    module, x, file = Patches().eval(), torch.randn(2, 5, 8, 9), io.BytesIO()
    torch.onnx.export(module, (x,), file, dynamo=False, opset_version=18)
    subject = infold.InferenceSession(file.getvalue())
    found = subject.run(None, {subject.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-6, atol=1e-6)
    assert not subject.report.fallbacks


def test_what_is_not_finite_stays_where_it_belongs():
    net = Net(3, 18)
    x = net.input(1, 4, 9)
    net.feeds[x][0, 3, 4] = np.inf  # the lower right pixel of the block in the middle
    y = net("Col2Im", x, net.ints(4, 4), net.ints(2, 2))
    found = session(net.model(y)).run(None, net.feeds)[0]
    assert found[0, 0, 2, 2] == np.inf and np.isfinite(found).sum() == 15


def test_columns_that_do_not_fit_are_refused():
    net = Net(4, 18)
    y = net("Col2Im", net.input(1, 8, 5), net.ints(4, 4), net.ints(2, 2))
    with pytest.raises(infold.Error):
        session(net.model(y)).run(None, net.feeds)
