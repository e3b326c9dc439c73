"""Models that the checker lets through and no shape makes sense of: a typed error that names the operator, never another
exception."""
from __future__ import annotations

import resource

import numpy as np
import onnx
import pytest
from session_harness import Net, session

import infold
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
    "max-opset-7": ("Max", (2, 3, 4, 5), (1, 3, 1, 5), dict(opset=7)),
    "clip-bound": ("Clip", (2, 3), (0,), {}),
    "softmax-axis-opset-9": ("Softmax", (2, 3), dict(axis=1 << 62, opset=9)),
    "concat-axis-opset-4": ("Concat", (2, 3), (2, 3), dict(axis=-(1 << 32), opset=4)),
    "layernorm-axis": ("LayerNormalization", (2, 3, 4), (4,), dict(axis=(1 << 32) - 9, outputs=3)),
    "depth-to-space-block": ("DepthToSpace", (1, 8, 2, 3), dict(blocksize=(1 << 31) + 1)),
    "deconv-groups": ("ConvTranspose", (1, 4, 3, 3), (4, 2, 3, 3), dict(group=1 << 31)),
    "cast-to-nothing": ("Cast", (2, 3), dict(to=0)),
    "batchnorm-mean": ("BatchNormalization", (2, 3, 4, 5), (3,), (3,), (2,), (3,), {}),
    "ceil-mode": ("MaxPool", (1, 3, 4, 4), dict(kernel_shape=[1, 1], ceil_mode=-1)),
    "reduce-axes-of-floats": ("ReduceMean", (2, 3, 4), (2,), {}),
    "reshape-to-floats": ("Reshape", (2, 3), (2,), {}),
    "split-outputs": ("Split", (4, 3), dict(num_outputs=1 << 62, outputs=2)),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions(case: str):
    op, shape, *constants, attributes = CONTRADICTIONS[case]
    net, y = build(op, shape, *constants, **attributes)
    with pytest.raises((InvalidModelError, MemoryLimitError), match=op):
        session(net.model(y)).run(None, net.feeds)


@pytest.mark.parametrize("op, shape, constants, attributes", [
    ("Conv", (1, 3, 4, 4), [(4, 3, 3, 3)], dict(pads=[FAR] * 4)),
    ("ConvTranspose", (1, 3, 8, 8), [(3, 5, 3, 3)], dict(strides=[1 << 30] * 2)),
    ("Pad", (2, 3), [[FAR, 0, 0, FAR]], {}),
])
def test_what_fits_no_memory(op: str, shape: tuple, constants: list, attributes: dict):
    net, y = build(op, shape, *constants, **attributes)
    with pytest.raises(MemoryLimitError, match=op):
        session(net.model(y)).run(None, net.feeds)


def test_a_batchnorm_behind_a_convolution_that_contradicts_itself():
    net = Net(0)
    x = net("Conv", net.input(1, 3, 5, 5), net.weight(4, 3, 3, 3))
    y = net("BatchNormalization", x, net.normal(4), net.normal(4), net.normal(2), net.positive(4))
    with pytest.raises(InvalidModelError):
        session(net.model(y)).run(None, net.feeds)


def test_inputs_that_no_memory_can_hold():
    net = Net(0)
    x = net.feed(np.zeros((1, 1), np.float32), (1 << 40, 1 << 40))
    with pytest.raises(MemoryLimitError, match=x):
        session(net.model(net("Relu", x)))


@pytest.mark.parametrize("op", ["Expand", "Tile", "Pad", "Resize", "ConstantOfShape", "Range"])
def test_constants_that_would_be_gigabytes(op: str):
    """What a few bytes of constants would make larger than `max_memory` is refused before it is made."""
    net, many = Net(0), 1 << 16
    one = net.constant(np.ones((1, 1), np.float32))
    y = {
        "Expand": lambda: net(op, one, net.ints(many, many)),
        "Tile": lambda: net(op, one, net.ints(many, many)),
        "Pad": lambda: net(op, one, net.ints(1 << 32, 0, 0, 0)),
        "Resize": lambda: net(op, one, None, net.constant(np.float32([many, many]))),
        "ConstantOfShape": lambda: net(op, net.ints(many, many)),
        "Range": lambda: net("Cast", net(op, *(net.constant(np.int64(n)) for n in (0, 1 << 34, 1))), to=1),
    }[op]()
    x = net.input(1, 1)
    model = net.model(net("Add", net("Abs", y), x))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MemoryLimitError):
        session(model, max_memory=1 << 28).run(None, net.feeds)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18  # KiB


def test_statistics_that_inference_does_not_give():
    net = Net(0, opset=15)
    x = net.input(2, 3, 4, 4)
    y, mean, variance = net("BatchNormalization", x, net.normal(3), net.normal(3), net.normal(3), net.positive(3), outputs=3)
    with pytest.raises(InvalidModelError):
        session(net.model(y, mean, variance)).run(None, net.feeds)


def test_copies_of_the_fallback_count():
    """What the reference evaluator is given and gives is memory like any other."""
    net = Net(0)
    x = net.input(1 << 16)
    model = net.model(net("Det", net("Reshape", x, net.ints(1 << 12, 4, 4))))
    needed = session(model).report.arena_bytes
    assert session(model).report.fallbacks
    session(model, max_memory=4 << 16 << 3).run(None, net.feeds)
    with pytest.raises(MemoryLimitError, match=r"\d{6} bytes for the fallback"):
        session(model, max_memory=needed + (4 << 16)).run(None, net.feeds)


HEAD = '<ir_version: 8, opset_import: ["": 18]>'


@pytest.mark.timeout(60)
@pytest.mark.parametrize("equation", [b".n\xb6V...-\xd1", b"i.j->ij", b"ij-ji"])
def test_an_equation_that_onnx_would_read_for_ever(equation):
    model = onnx.parser.parse_model(HEAD + "g (float[3, 5] x) => (float[3, 5] y) { y = Einsum (x) }")
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("equation", equation))
    with pytest.raises(infold.Error, match=r"equation|Einsum"):
        infold.InferenceSession(model)


def test_an_output_of_undefined_type():
    """Where inference leaves it so, as it does for the statistics of a LayerNorm: refused in words, or run."""
    text = "g (float[2, 3, 5] x, float[3, 5] w) => (float[2, 3, 5] y, float[2, 1, 1] m, float[2, 1, 1] d)"
    model = onnx.parser.parse_model(HEAD + text + "{ y, m, d = LayerNormalization <axis = 1> (x, w) }")
    model.graph.output[2].type.tensor_type.elem_type = 0
    x = np.arange(30, dtype=np.float32).reshape(2, 3, 5)
    try:
        found = infold.InferenceSession(model).run(None, {"x": x, "w": np.ones((3, 5), np.float32)})
    except infold.Error:
        return
    np.testing.assert_allclose(found[1].ravel(), x.mean((1, 2)))


@pytest.mark.parametrize(("op", "fractions"), [("Reshape", [3.0, 4.0]), ("ReduceMean", [0.1, 1.2]), ("Expand", [2.0, 6.0])])
def test_fractions_for_sizes_and_axes(op, fractions):
    net = Net(0, 22)
    y = net(op, net.input(2, 6), net.constant(np.array(fractions, np.float32)))
    with pytest.raises(infold.Error, match=op):
        session(net.model(y)).run(None, net.feeds)
