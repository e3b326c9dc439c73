"""DepthToSpace and SpaceToDepth, of rows and of images."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_depth_to_space(mode, block, like_onnxruntime):
    net = Net(opset=13)
    y = net("DepthToSpace", net.input(2, 5 * block * block, 4, 3), blocksize=block, mode=mode)
    check(net, y)
    like_onnxruntime(net, y)
    net = Net(opset=13)
    x = net("Conv", net.input(2, 3, 6, 5), net.weight(5 * block * block, 3, 3, 3))
    y = net("DepthToSpace", x, blocksize=block, mode=mode)
    check(net, net("Conv", y, net.weight(4, 5, 1, 1)))


@pytest.mark.parametrize("block", [1, 2, 4])
def test_space_to_depth(block, like_onnxruntime):
    net = Net(opset=13)
    y = net("SpaceToDepth", net.input(2, 5, 3 * block, 2 * block), blocksize=block)
    check(net, y)
    like_onnxruntime(net, y)
    net = Net(opset=28)
    check(net, net("SpaceToDepth", net.input(2, 5, 3 * block, 2 * block), blocksize=block, mode="CRD"))
    net = Net(opset=13)
    y = net("SpaceToDepth", net("Conv", net.input(1, 3, 2 * block, 3 * block), net.weight(7, 3, 1, 1)), blocksize=block)
    check(net, net("Conv", y, net.weight(4, 7 * block * block, 1, 1)))


def test_other_types():
    net = Net(opset=13)
    x = net.feed(net.rng.integers(0, 255, (2, 8, 4, 6)).astype(np.uint8))
    y, z = net("DepthToSpace", x, blocksize=2), net("SpaceToDepth", x, blocksize=2)
    check(net, y, z, types=dict.fromkeys((y, z), onnx.TensorProto.UINT8))
