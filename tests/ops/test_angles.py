"""Sin, Cos, Tan, their hyperbolic relatives and inverses: native, for both float types, against the reference."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check


@pytest.mark.parametrize("op", ["Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"])
def test_trigonometry(op: str):
    net = Net(1, 22)
    x = net.rng.uniform(-1, 1, (2, 3, 5, 7)) * (1 if op in ("Asin", "Acos", "Atanh") else 5 if op in ("Sinh", "Cosh") else 300)
    x = np.abs(x) + 1 if op == "Acosh" else x
    double = net("Cast", net(op, net.feed(x)), to=onnx.TensorProto.FLOAT)
    image = net.feed(x.astype(np.float32))
    channels_last = net("Transpose", image, perm=[0, 2, 3, 1])
    check(net, net(op, image), net(op, channels_last), double)
