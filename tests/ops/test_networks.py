"""Operators together: the blocks that real networks are made of, and random graphs of them."""
from __future__ import annotations

import numpy as np
import pytest
from session_harness import Net, check

BLOCK = 5e-6  # relative to the largest element: a handful of layers deep


def batch_norm(net: Net, x: str, channels: int) -> str:
    return net("BatchNormalization", x, net.positive(channels), net.normal(channels), net.normal(channels), net.positive(channels))


def conv(net: Net, x: str, channels: int, filters: int, kernel: int = 1, stride: int = 1, group: int = 1) -> str:
    return net("Conv", x, net.weight(filters, channels // group, kernel, kernel), net.normal(filters), strides=[stride] * 2,
               pads=[kernel // 2] * 4, group=group)


def test_residual_block():
    net = Net(1)
    x = net("Relu", batch_norm(net, conv(net, net.input(2, 3, 15, 15), 3, 20, 3, 2), 20))
    y = net("Relu", batch_norm(net, conv(net, x, 20, 8), 8))
    y = net("Relu", batch_norm(net, conv(net, y, 8, 8, 3), 8))
    y = batch_norm(net, conv(net, y, 8, 20), 20)
    check(net, net("Relu", net("Add", y, x)), tolerance=BLOCK)


def test_squeeze_and_excitation():
    net = Net(2)
    x = net("HardSwish", conv(net, net.input(2, 3, 9, 9), 3, 24, 3))
    s = net("GlobalAveragePool", conv(net, x, 24, 24, 3, 1, 24))
    s = net("HardSigmoid", conv(net, net("Relu", conv(net, s, 24, 6)), 6, 24), alpha=1 / 6, beta=0.5)
    check(net, conv(net, net("Mul", x, s), 24, 7), tolerance=BLOCK)


def test_inverted_residual():
    net = Net(3)
    x = conv(net, net.input(1, 8, 10, 10), 8, 8)
    low, high = net.constant(np.float32(0)), net.constant(np.float32(6))
    y = net("Clip", conv(net, x, 8, 48), low, high)
    y = net("Clip", conv(net, y, 48, 48, 3, 1, 48), low, high)
    check(net, net("Add", x, conv(net, y, 48, 8)), tolerance=BLOCK)


def test_inception_branches():
    net = Net(4)
    x = net("Relu", conv(net, net.input(1, 3, 12, 12), 3, 16, 3))
    pool = net("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    branches = [conv(net, x, 16, 5), conv(net, net("Relu", conv(net, x, 16, 6)), 6, 7, 3), conv(net, conv(net, x, 16, 3), 3, 4, 5),
                conv(net, pool, 16, 8), net("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)]
    joined = net("Relu", net("Concat", *branches, axis=1))
    check(net, conv(net, net("MaxPool", joined, kernel_shape=[3, 3], strides=[2, 2]), 40, 6, 3), tolerance=BLOCK)


def test_layer_normalisation_between_transposes():
    """ConvNeXt's block: depthwise, channels last, LayerNormalization, two products with GELU between, scale, residual."""
    net = Net(5)
    x = conv(net, net.input(2, 3, 8, 8), 3, 24, 4, 4)
    y = net("Transpose", conv(net, x, 24, 24, 7, 1, 24), perm=[0, 2, 3, 1])
    y = net("LayerNormalization", y, net.normal(24), net.normal(24))
    y = net("Gelu", net("Add", net("MatMul", y, net.weight(24, 96)), net.normal(96)))
    y = net("Mul", net("Add", net("MatMul", y, net.weight(96, 24)), net.normal(24)), net.normal(24))
    check(net, net("Add", net("Transpose", y, perm=[0, 3, 1, 2]), x), tolerance=BLOCK)


def test_attention():
    """Q, K and V from one product, split into heads by views; scores scaled; heads merged again."""
    net, n, length, heads, width = Net(6), 2, 7, 3, 8
    x = net.input(n, length, heads * width)
    qkv = net("Add", net("MatMul", x, net.weight(heads * width, 3 * heads * width)), net.normal(3 * heads * width))
    qkv = net("Transpose", net("Reshape", qkv, net.ints(n, length, 3, heads, width)), perm=[2, 0, 3, 1, 4])
    q, k, v = (net("Gather", qkv, net.constant(np.int64(i)), axis=0) for i in range(3))
    scores = net("Mul", net("MatMul", q, net("Transpose", k, perm=[0, 1, 3, 2])), net.constant(np.float32(width ** -0.5)))
    y = net("MatMul", net("Softmax", scores, axis=-1), v)
    y = net("Reshape", net("Transpose", y, perm=[0, 2, 1, 3]), net.ints(n, length, heads * width))
    check(net, net("Add", x, net("MatMul", y, net.weight(heads * width, heads * width))), tolerance=BLOCK)


def test_up_and_down():
    """A small U-Net: pooling down, transposed convolutions up, and the way across by concatenation."""
    net = Net(7)
    x = net.input(1, 3, 16, 16)
    one = net("Relu", conv(net, x, 3, 6, 3))
    two = net("Relu", conv(net, net("MaxPool", one, kernel_shape=[2, 2], strides=[2, 2]), 6, 10, 3))
    three = net("Relu", conv(net, net("MaxPool", two, kernel_shape=[2, 2], strides=[2, 2]), 10, 12, 3))
    up = net("ConvTranspose", three, net.weight(12, 10, 2, 2), net.normal(10), strides=[2, 2])
    up = net("Relu", conv(net, net("Concat", up, two, axis=1), 20, 10, 3))
    up = net("Resize", up, None, net.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    check(net, net("Sigmoid", conv(net, net("Concat", one, up, axis=1), 16, 2, 3)), tolerance=BLOCK)


def test_recognition_head():
    """OCR's end: a column of features becomes a sequence, with Softmax over the classes."""
    net = Net(8)
    x = net("HardSwish", conv(net, net.input(2, 3, 4, 24), 3, 12, 3))
    x = net("AveragePool", x, kernel_shape=[4, 2], strides=[4, 2])
    x = net("Transpose", net("Squeeze", x, net.ints(2)), perm=[0, 2, 1])
    check(net, net("Softmax", net("Add", net("MatMul", x, net.weight(12, 40)), net.normal(40)), axis=2), tolerance=BLOCK)


def test_one_dimensional_network():
    net = Net(9)
    x = net.input(2, 4, 64)
    for channels, filters, dilation in ((4, 10, 1), (10, 10, 2), (10, 10, 4)):
        y = net("Conv", x, net.weight(filters, channels, 3), net.normal(filters), dilations=[dilation], pads=[dilation] * 2)
        x = net("Relu", net("Add", y, x)) if channels == filters else net("Relu", y)
    check(net, net("MaxPool", net("Concat", x, net("Tanh", x), axis=1), kernel_shape=[4], strides=[4]), tolerance=BLOCK)


def random_network(seed: int) -> tuple[Net, list[str]]:
    """A random graph over images of one size: every operator reads values chosen among all before it."""
    net = Net(seed)
    rng, size, batch = np.random.default_rng(seed), int(np.random.default_rng(seed).integers(3, 11)), 1 + seed % 2
    values = [(net.input(batch, 5, size, size), 5), (net.input(batch, 3, size, size), 3)]

    def pick() -> tuple[str, int]:
        return values[max(0, len(values) - 1 - int(rng.geometric(0.4)) + 1) % len(values)]

    def same(channels: int) -> list[str]:
        return [v for v, c in values if c == channels]

    for _ in range(int(rng.integers(4, 14))):
        x, c = pick()
        match rng.integers(0, 11):
            case 0 | 1:
                filters = int(rng.integers(1, 24))
                y, c = conv(net, x, c, filters, int(rng.choice([1, 3, 5]))), filters
            case 2:
                y = conv(net, x, c, c, 3, 1, c)
            case 3:
                y = net(str(rng.choice(["Relu", "Sigmoid", "HardSwish", "LeakyRelu", "Tanh"])), x)
            case 4:
                y = net(str(rng.choice(["Add", "Mul", "Max"])), x, str(rng.choice(same(c))))
            case 5:
                others = [pick() for _ in range(int(rng.integers(1, 4)))]
                if c + sum(n for _, n in others) > 60:
                    continue
                y, c = net("Concat", x, *(v for v, _ in others), axis=1), c + sum(n for _, n in others)
            case 6:
                if c < 2:
                    continue
                at = int(rng.integers(1, c))
                first, y = net("Split", x, net.ints(at, c - at), axis=1, outputs=2)
                values.append((first, at))
                c -= at
            case 7:
                kind = str(rng.choice(["MaxPool", "AveragePool"]))
                y = net(kind, x, kernel_shape=[3, 3], pads=[1] * 4)
            case 8:
                y = batch_norm(net, x, c)
            case 9:
                y = net("Transpose", x, perm=[0, 1, 3, 2])
            case 10:
                if c % 2:
                    continue
                y = net("Reshape", x, net.ints(batch, 2, c // 2, size, size))
                y = net("Reshape", net("Transpose", y, perm=[0, 2, 1, 3, 4]), net.ints(batch, c, size, size))
        values.append((y, c))
    read = {name for node in net.nodes for name in node.input}
    made = [v for v, _ in values if v not in net.feeds]
    ends = [v for v in made if v not in read] or made[-1:] or [net("Relu", values[0][0])]
    return net, ends + [v for v in made if v in read and rng.random() < 0.15]


@pytest.mark.parametrize("seed", range(80))
def test_random_networks(seed: int):
    net, outputs = random_network(seed)
    check(net, *dict.fromkeys(outputs), tolerance=1e-5)
