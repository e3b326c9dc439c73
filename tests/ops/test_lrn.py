"""Local response normalisation, rows and images."""

from __future__ import annotations

import pytest
from session_harness import Net, check


@pytest.mark.parametrize("size,beta", [(5, 0.75), (3, 0.5), (4, 0.75), (1, 1.0), (9, 0.3)])
@pytest.mark.parametrize("shape", [(2, 7, 5, 6), (1, 96, 4, 4), (1, 3, 20), (1, 600, 2, 2)])
def test_local_response(size, beta, shape, like_onnxruntime):
    net = Net(opset=13)
    y = net("LRN", net.input(*shape), size=size, beta=beta, alpha=0.1, bias=2.0)
    check(net, y)
    if len(shape) == 4 and size % 2:
        like_onnxruntime(net, y)
