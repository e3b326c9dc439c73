"""However many threads share a step, and whoever does what: the same bits."""
from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, session


def network(size: int = 45) -> tuple[Net, object]:
    """Products that are shared out by rows, by columns and by groups, of one pixel and of many; depthwise and Winograd
    convolutions, pools, a squeeze-and-excitation; odd sizes."""
    net = Net(5)

    def conv(x: str, channels: int, filters: int, kernel: int, groups: int = 1, stride: int = 1) -> str:
        x = net("Conv", x, net.weight(filters, channels // groups, kernel, kernel), net.normal(filters), group=groups,
                pads=[kernel // 2] * 4, strides=[stride] * 2)
        return net("Relu", x)

    x = conv(net.input(1, 3, size, size), 3, 70, 5)
    x = conv(conv(x, 70, 70, 3, groups=70), 70, 140, 1)
    factors = net("Sigmoid", conv(conv(net("GlobalAveragePool", x), 140, 600, 1), 600, 140, 1))
    x = conv(net("Mul", x, factors), 140, 160, 3, groups=4, stride=2)
    x = net("MaxPool", conv(conv(x, 160, 130, 3), 130, 130, 5, groups=130), kernel_shape=[3, 3], strides=[2, 2])
    x = conv(x, 130, 1000, 1)
    return net, net.model(net("GlobalAveragePool", x))


@pytest.mark.parametrize("options", [{}, {"precision": "medium"}], ids=["highest", "medium"])
def test_same_bits_with_any_number_of_threads(options: dict) -> None:
    net, model = network()
    expected = session(model, 1, **options).run(None, net.feeds)[0]
    assert np.abs(expected).max() > 0
    for threads in (2, 3, 7, 64, 200):
        subject = session(model, threads, **options)
        for _ in range(3):
            np.testing.assert_array_equal(subject.run(None, net.feeds)[0], expected, err_msg=f"{threads} threads")
