"""Transposes of networks written channels last: they cancel behind what computes element by element."""
from __future__ import annotations

import numpy as np
import pytest
from exports import export
from session_harness import Net, check, session

LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def left(net: Net, output: str) -> list[str]:
    """Operators of the prepared graph, after its results were checked."""
    return [node.op_type for node in check(net, output).model.graph]


def convolved(net: Net, x: str, filters: int, channels: int) -> str:
    """A convolution whose input and output have their channels last."""
    y = net("Conv", net("Transpose", x, perm=FIRST), net.weight(filters, channels, 1, 1), net.normal(filters))
    return net("Transpose", y, perm=LAST)


@pytest.mark.parametrize("activation", ["Relu", "HardSwish", "Clip", "LeakyRelu", "Sigmoid"])
def test_activation(activation: str):
    net = Net(1, 17)
    limits = [net.constant(np.float32(n)) for n in (-0.5, 0.75)] if activation == "Clip" else []
    x = net(activation, convolved(net, net.input(2, 6, 5, 4), 7, 4), *limits)
    assert left(net, convolved(net, x, 3, 7)) == ["Transpose", "Conv", activation, "Conv", "Transpose"]


def test_residual_and_constants():
    net = Net(2, 17)
    x = net("Relu", convolved(net, net.input(2, 6, 5, 4), 7, 4))
    y = net("Sub", net("Add", x, convolved(net, x, 7, 7)), net.constant(np.float32(0.25)))
    y = net("Div", net.constant(np.linspace(1, 2, 7, dtype=np.float32)), net("Sigmoid", y))
    assert left(net, convolved(net, y, 3, 7)).count("Transpose") == 2


def test_an_image_that_others_read():
    """A Transpose stays for who needs it, and the graph's output is what it was."""
    net = Net(3, 17)
    x = convolved(net, net.input(2, 6, 5, 4), 7, 4)
    y = net("Relu", x)
    check(net, x, y, net("MatMul", y, net.weight(7, 3)))


def test_padding_goes_into_the_convolution():
    net = Net(4, 17)
    x = net("Pad", net("Relu", convolved(net, net.input(2, 6, 5, 4), 7, 4)), net.ints(0, 1, 2, 0, 0, 3, 0, 0))
    y = net("Conv", net("Transpose", x, perm=FIRST), net.weight(5, 7, 3, 3))
    assert left(net, y) == ["Transpose", "Conv", "Relu", "Conv"]


@pytest.mark.parametrize("axis", [1, 3, -1])
def test_concat(axis: int):
    net = Net(5, 17)
    x = net.input(2, 6, 5, 4)
    joined = net("Concat", *(net("Relu", convolved(net, x, 7, 4)) for _ in range(2)), axis=axis)
    assert left(net, convolved(net, joined, 3, 14 if axis != 1 else 7)).count("Transpose") == 3  # two at the input


def test_what_stays():
    """Operators that know their axes, other orders, and operands without the Transpose."""
    net = Net(6, 17)
    x = convolved(net, net.input(2, 6, 5, 4), 7, 4)
    check(net, net("Softmax", x, axis=-1), net("ReduceMean", x, axes=[1, 2]), net("Mul", x, net("Neg", net.input(2, 6, 5, 7))),
          net("Add", x, net.normal(6, 5, 7)), net("Relu", net("Transpose", net.input(2, 3, 4, 5), perm=[0, 3, 2, 1])))


@pytest.mark.parametrize("opset", [13, 17])
def test_a_network_written_channels_last(opset: int):
    """As Keras has it: BatchNorms over the last axis, padding before strides, residuals; only the input's Transpose is left."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Layer(torch.nn.Module):
        def __init__(self, channels, filters, groups=1, stride=1, size=3):
            super().__init__()
            self.conv = torch.nn.Conv2d(channels, filters, size, stride, groups=groups, bias=False)
            self.scale, self.shift = torch.nn.Parameter(torch.rand(filters) + 0.5), torch.nn.Parameter(torch.randn(filters))
            self.size = size

        def forward(self, x):
            x = torch.nn.functional.pad(x, [0, 0] + [self.size // 2] * 4)
            return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) * self.scale + self.shift

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.up, self.down = Layer(3, 8, stride=2), Layer(8, 16, size=1), Layer(16, 8, size=1)
            self.deep = Layer(16, 16, groups=16)

        def forward(self, x):
            x = torch.nn.functional.relu6(self.stem(x))
            x = x + self.down(torch.nn.functional.relu6(self.deep(torch.nn.functional.relu6(self.up(x)))))
            return torch.nn.functional.silu(x).mean((1, 2))

    x = torch.randn(1, 16, 12, 3)
    network = Network().eval()
    subject = session(export(network, x, "script", opset))
    with torch.no_grad():
        expected = network.double()(x.double()).numpy()
    np.testing.assert_allclose(subject.run(None, {"x": x.numpy()})[0], expected, atol=2e-6 * np.abs(expected).max(), rtol=0)
    kernels = [s.kernel for s in subject.profile({"x": x.numpy()}, runs=1)]
    assert not {"unary.clip", "binary.add", "binary.mul", "copy"} & set(kernels), kernels
