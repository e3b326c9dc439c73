"""Random convolutional networks: every operator a network may meet, shapes that always fit, several readers, inner outputs."""

from __future__ import annotations

import random

import numpy as np
import onnx
from onnx import helper, numpy_helper

_UNARY = ("Relu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Elu", "LeakyRelu", "Abs", "Neg", "Identity", "Erf",
          "Selu",
          "Mish", "Softsign", "Celu", "Exp")


class _Builder:
    def __init__(self, rng: random.Random) -> None:
        self.rng, self.numbers = rng, np.random.default_rng(rng.randrange(1 << 32))
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {}

    def constant(self, array) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int) -> str:
        fan = max(1, int(np.prod(shape[1:])))
        return self.constant((self.numbers.standard_normal(shape) / np.sqrt(fan)).astype(np.float32))

    def positive(self, count: int) -> str:
        return self.constant(self.numbers.uniform(0.5, 2, count).astype(np.float32))

    def node(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{op}{len(self.nodes)}", **attributes))
        self.shapes[name] = shape
        return name


def random_network(rng: random.Random, nodes: int = 12, size: int = 9,
                   open_dims: bool | None = None) -> tuple[onnx.ModelProto, dict]:
    """(model, feeds): `nodes` operators on one image of about size x size; every unread value and some others are outputs.

    open_dims: batch, height and width are symbols (None: at random).
    """
    b = _Builder(rng)
    shape = (rng.choice((1, 1, 2)), rng.choice((1, 3, 4, 17)), rng.randint(max(3, size - 3), size + 3),
             rng.randint(max(3, size - 3), size + 3))
    b.shapes["x"] = shape
    for _ in range(nodes):
        values = list(b.shapes)
        _step(b, rng.choice(values[-2:] if rng.random() < 0.7 else values))
    read = {name for node in b.nodes for name in node.input}
    outputs = [n for n in b.shapes if n not in read and n != "x"] or [next(reversed(b.shapes))]
    outputs += [n for n in b.shapes if n not in outputs and n != "x" and rng.random() < 0.1]
    dims = ("n", shape[1], "h", "w") if (rng.random() < 0.5 if open_dims is None else open_dims) else shape
    graph = helper.make_graph(b.nodes, "random", [helper.make_tensor_value_info("x", 1, dims)],
                              [helper.make_tensor_value_info(n, 1, None) for n in outputs], b.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    return model, {"x": b.numbers.standard_normal(shape).astype(np.float32)}


def _step(b: _Builder, x: str) -> None:
    rng, shape = b.rng, b.shapes[x]
    n, c, *spatial = shape
    choices = [_conv, _conv, _conv, _depthwise, _pool, _pool, _bn, _bn, _unary, _unary, _clip, _binary, _binary, _by_channel,
               _concat, _concat,
               _squeeze, _transposed, _resize, _pad, _slice, _split, _shuffle, _norm, _lrn, _softmax, _matmul, _reduce]
    rng.choice(choices)(b, x, n, c, spatial)


def _conv(b, x, n, c, spatial):
    kernel, stride, dilation = b.rng.choice((1, 1, 2, 3, 3, 5)), b.rng.choice((1, 1, 2)), b.rng.choice((1, 1, 1, 2))
    group = b.rng.choice([g for g in (1, 1, 1, 2, 4) if c % g == 0])
    filters = group * b.rng.choice((1, 2, 5, 8))
    reach, pad = dilation * (kernel - 1) + 1, dilation * (kernel - 1) // 2 + b.rng.choice((0, 0, 1))
    out = [(s + 2 * pad - reach) // stride + 1 for s in spatial]
    if min(out) < 1:
        return
    bias = [b.weight(filters)] if b.rng.random() < 0.5 else []
    b.node("Conv", [x, b.weight(filters, c // group, kernel, kernel), *bias], (n, filters, *out), strides=[stride] * 2,
           pads=[pad] * 4,
           dilations=[dilation] * 2, group=group)


def _depthwise(b, x, n, c, spatial):
    b.node("Conv", [x, b.weight(c, 1, 3, 3)], (n, c, *spatial), pads=[1] * 4, group=c)


def _transposed(b, x, n, c, spatial):
    stride, filters = b.rng.choice((1, 2)), b.rng.choice((1, 3, 4))
    out = [(s - 1) * stride + 3 - 2 for s in spatial]
    if np.prod(out) < 2000 and min(out) > 0:
        b.node("ConvTranspose", [x, b.weight(c, filters, 3, 3)], (n, filters, *out), strides=[stride] * 2, pads=[1] * 4)


def _pool(b, x, n, c, spatial):
    kernel, stride, pad = b.rng.choice((2, 3)), b.rng.choice((1, 2)), b.rng.choice((0, 1))
    ceil = b.rng.random() < 0.2
    out = [(s + 2 * pad - kernel + (stride - 1 if ceil else 0)) // stride + 1 for s in spatial]
    if min(out) < 1 or min(spatial) < kernel or (ceil and any((o - 1) * stride >= s + pad for o, s in zip(out, spatial))):
        return
    op = b.rng.choice(("MaxPool", "AveragePool"))
    more = {"count_include_pad": b.rng.choice((0, 1))} if op == "AveragePool" else {}
    b.node(op, [x], (n, c, *out), kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=int(ceil), **more)


def _bn(b, x, n, c, spatial):
    b.node("BatchNormalization", [x, b.positive(c), b.weight(c), b.weight(c), b.positive(c)], (n, c, *spatial))


def _unary(b, x, n, c, spatial):
    op = b.rng.choice(_UNARY)
    if op == "Exp":
        x = b.node("Neg", [b.node("Abs", [x], (n, c, *spatial))], (n, c, *spatial))
    b.node(op, [x], (n, c, *spatial))


def _clip(b, x, n, c, spatial):
    b.node("Clip", [x, b.constant(np.float32(0)), b.constant(np.float32(6))], (n, c, *spatial))


def _binary(b, x, n, c, spatial):
    same = [v for v, s in b.shapes.items() if s == b.shapes[x]]
    b.node(b.rng.choice(("Add", "Add", "Mul", "Sub", "Max", "Min")), [x, b.rng.choice(same)], (n, c, *spatial))


def _by_channel(b, x, n, c, spatial):
    b.node(b.rng.choice(("Add", "Mul")), [x, b.weight(1, c, 1, 1)], (n, c, *spatial))


def _concat(b, x, n, c, spatial):
    fitting = [v for v, s in b.shapes.items() if s[0] == n and list(s[2:]) == list(spatial)]
    others = [b.rng.choice(fitting) for _ in range(b.rng.choice((1, 1, 2)))]
    channels = c + sum(b.shapes[o][1] for o in others)
    if channels <= 64:
        b.node("Concat", [x, *others], (n, channels, *spatial), axis=1)


def _squeeze(b, x, n, c, spatial):
    pooled = b.node("GlobalAveragePool", [x], (n, c, 1, 1))
    gate = b.node("Sigmoid", [b.node("Conv", [pooled, b.weight(c, c, 1, 1)], (n, c, 1, 1))], (n, c, 1, 1))
    b.node("Mul", [x, gate], (n, c, *spatial))


def _resize(b, x, n, c, spatial):
    if np.prod(spatial) <= 150:
        mode = b.rng.choice(("nearest", "linear"))
        b.node("Resize", [x, "", b.constant(np.float32([1, 1, 2, 2]))], (n, c, *(2 * s for s in spatial)), mode=mode,
               coordinate_transformation_mode=b.rng.choice(("half_pixel", "asymmetric", "align_corners")), nearest_mode="floor")


def _pad(b, x, n, c, spatial):
    mode = b.rng.choice(("constant", "reflect", "edge"))
    if min(spatial) > 2:
        b.node("Pad", [x, b.constant(np.int64([0, 0, 1, 0, 0, 0, 0, 2]))], (n, c, spatial[0] + 1, spatial[1] + 2), mode=mode)


def _slice(b, x, n, c, spatial):
    if spatial[0] > 3:
        b.node("Slice", [x, b.constant(np.int64([1])), b.constant(np.int64([spatial[0] - 1])), b.constant(np.int64([2]))],
               (n, c, spatial[0] - 2, spatial[1]))


def _split(b, x, n, c, spatial):
    if c % 2 == 0:
        halves = [f"v{len(b.nodes)}", f"v{len(b.nodes)}b"]
        b.nodes.append(helper.make_node("Split", [x], halves, axis=1, num_outputs=2))
        b.shapes.update(dict.fromkeys(halves, (n, c // 2, *spatial)))


def _shuffle(b, x, n, c, spatial):
    if c % 2 == 0 and c > 2:
        split = b.node("Reshape", [x, b.constant(np.int64([n, 2, c // 2, *spatial]))], (n, 2, c // 2, *spatial))
        moved = b.node("Transpose", [split], (n, c // 2, 2, *spatial), perm=[0, 2, 1, 3, 4])
        b.node("Reshape", [moved, b.constant(np.int64([n, c, *spatial]))], (n, c, *spatial))
        del b.shapes[split], b.shapes[moved]


def _norm(b, x, n, c, spatial):
    if b.rng.random() < 0.5:
        b.node("InstanceNormalization", [x, b.positive(c), b.weight(c)], (n, c, *spatial))
    else:
        b.node("LayerNormalization", [x, b.positive(spatial[1])], (n, c, *spatial), axis=-1)


def _lrn(b, x, n, c, spatial):
    b.node("LRN", [x], (n, c, *spatial), size=3)


def _softmax(b, x, n, c, spatial):
    b.node("Softmax", [x], (n, c, *spatial), axis=b.rng.choice((1, -1)))


def _matmul(b, x, n, c, spatial):
    columns = b.rng.choice((1, 5, 8))
    b.node("MatMul", [x, b.weight(spatial[1], columns)], (n, c, spatial[0], columns))


def _reduce(b, x, n, c, spatial):
    op = b.rng.choice(("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"))
    b.node(op, [x, b.constant(np.int64([2, 3]))], (n, c, 1, 1), keepdims=1)
