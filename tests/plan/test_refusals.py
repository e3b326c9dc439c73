"""Models that the checker lets through and no shape makes sense of: a typed error that names the operator, never another exception."""
from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, session

from infold.errors import InvalidModelError, MemoryLimitError

FAR = 1 << 40


def build(op: str, dims, *constants, opset: int = 18, outputs: int = 1, **attributes) -> tuple[Net, str]:
    """One node on an input of open dimensions, so that nothing is refused before the run."""
    net = Net(0, opset)
    x = net.feed(net.rng.standard_normal(dims).astype(np.float32), tuple(f"d{i}" for i in range(len(dims))))
    inputs = [net.ints(*c) if isinstance(c, list) else net.normal(*c) for c in constants]
    y = net(op, x, *inputs, outputs=outputs, **attributes)
    return net, y[0] if outputs > 1 else y


CONTRADICTIONS = {  # operator, input shape, constants (a tuple: shape of a float weight; a list: integers), attributes
    "conv-channels": ("Conv", (2, 3, 8, 8), (4, 5, 3, 3), {}),
    "conv-kernel-beyond-image": ("Conv", (2, 3, 4, 4), (4, 3, 9, 9), {}),
    "conv-kernel-shape": ("Conv", (2, 3, 8, 8), (4, 3, 3, 3), dict(kernel_shape=[5, 5])),
    "conv-no-groups": ("Conv", (2, 3, 4, 4), (4, 3, 3, 3), dict(group=0)),
    "conv-uneven-groups": ("Conv", (2, 3, 4, 4), (4, 1, 3, 3), dict(group=2)),
    "conv-bias": ("Conv", (2, 3, 4, 4), (4, 3, 3, 3), (7,), {}),
    "conv-dilation": ("Conv", (2, 3, 4, 4), (4, 3, 3, 3), dict(dilations=[1 << 62] * 2)),
    "deconv-channels": ("ConvTranspose", (2, 3, 8, 8), (4, 5, 3, 3), {}),
    "deconv-bias": ("ConvTranspose", (2, 3, 8, 8), (3, 5, 3, 3), (2,), {}),
    "gemm-addend": ("Gemm", (4, 5), (5, 3), (4,), {}),
    "gemm-rank": ("Gemm", (4, 5, 6), (7, 3), {}),
    "matmul-batch": ("MatMul", (2, 3, 4, 5), (4, 3, 5, 3), {}),
    "pool-kernel-beyond-image": ("MaxPool", (2, 3, 4, 5), dict(kernel_shape=[9, 9])),
    "transpose-too-few": ("Transpose", (2, 3, 4, 5), dict(perm=[1, 0])),
    "reshape-size": ("Reshape", (2, 3, 4, 5), [7, 9], {}),
    "reshape-size-opset-1": ("Reshape", (2, 3, 4, 5), dict(shape=[7, 9], opset=4)),
    "reshape-rank-opset-1": ("Reshape", (2, 3), dict(shape=[1, 1, 0], opset=4)),
    "slice-axis-opset-9": ("Slice", (2, 3, 4, 5), dict(starts=[0], ends=[1], axes=[7], opset=9)),
    "slice-step": ("Slice", (2, 3, 4, 5), [0], [1], [1], [0], {}),
    "split-negative": ("Split", (2, 3, 4, 5), [-1, 4], dict(axis=1, outputs=2)),
    "concat-opset-1": ("Concat", (2, 3, 4, 5), (2, 3, 1, 1), dict(opset=3)),
    "concat-rank-opset-1": ("Concat", (2, 3, 4, 5), (2, 3), dict(opset=3)),
    "expand-negative": ("Expand", (1, 1), [-7, 1], {}),
    "pad-beyond-nothing": ("Pad", (2, 3, 4, 5), [-9, 0, 0, 0, 0, 0, 0, 0], {}),
    "pad-opset-1": ("Pad", (2, 3, 4, 5), dict(paddings=[1, 1], opset=1)),
    "batchnorm-channels": ("BatchNormalization", (2, 3, 4, 5), (5,), (5,), (5,), (5,), {}),
    "prelu-slope": ("PRelu", (2, 3, 4, 5), (7,), {}),
    "prelu-rank": ("PRelu", (2, 3, 4, 5), (2, 2, 3, 4, 5), {}),
    "add-opset-6": ("Add", (2, 3, 4, 5), (4,), dict(broadcast=1, axis=1, opset=6)),
    "clip-bound": ("Clip", (2, 3), (0,), {}),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions(case: str):
    op, shape, *constants, attributes = CONTRADICTIONS[case]
    net, y = build(op, shape, *constants, **attributes)
    with pytest.raises(InvalidModelError, match=op):
        session(net.model(y)).run(None, net.feeds)


@pytest.mark.parametrize("op, shape, constants, attributes", [
    ("Conv", (1, 3, 4, 4), [(4, 3, 3, 3)], dict(pads=[FAR] * 4)), ("ConvTranspose", (1, 3, 8, 8), [(3, 5, 3, 3)], dict(strides=[1 << 30] * 2)),
    ("Pad", (2, 3), [[FAR, 0, 0, FAR]], {}),
])
def test_what_fits_no_memory(op: str, shape: tuple, constants: list, attributes: dict):
    net, y = build(op, shape, *constants, **attributes)
    with pytest.raises(MemoryLimitError, match=op):
        session(net.model(y)).run(None, net.feeds)
