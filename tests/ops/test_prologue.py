"""A BatchNorm that cannot be folded costs no pass of its own in front of 1x1 convolutions."""
from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from session_harness import Net, check

import infold
from infold.reference import run_float64


def model(rng, relu: bool, readers: int, kernel: int = 1, channels: int = 19, stride: int = 1, also_output: bool = False):
    """x -> MaxPool -> BN (-> ReLU) -> `readers` convolutions."""
    def tensor(name, *shape, positive=False):
        data = rng.standard_normal(shape).astype(np.float32)
        return onnx.numpy_helper.from_array(np.abs(data) + 0.5 if positive else data, name)

    weights = [tensor("gamma", channels), tensor("beta", channels), tensor("mean", channels),
               tensor("var", channels, positive=True)]
    nodes = [helper.make_node("MaxPool", ["x"], ["p"], "pool", kernel_shape=[2, 2]),
             helper.make_node("BatchNormalization", ["p", "gamma", "beta", "mean", "var"], ["n"], "bn")]
    mapped = "n"
    if relu:
        nodes.append(helper.make_node("Relu", ["n"], ["r"], "relu"))
        mapped = "r"
    outputs = []
    for i in range(readers):
        weights.append(tensor(f"w{i}", 7 + 30 * i, channels, kernel, kernel))
        nodes.append(helper.make_node("Conv", [mapped, f"w{i}"], [f"y{i}"], f"conv{i}", strides=[stride, stride],
                                      pads=[kernel // 2] * 4))
        outputs.append(f"y{i}")
    if also_output:
        outputs.append(mapped)
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, [2, channels, 9, 8])],
                              [helper.make_tensor_value_info(n, 1, None) for n in outputs], weights)
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def run(proto, threads: int):
    channels = proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    x = np.random.default_rng(7).standard_normal((2, channels, 9, 8)).astype(np.float32)
    session = infold.InferenceSession(proto, infold.SessionOptions(intra_op_num_threads=threads))
    return session, session.run(None, {"x": x}), list(run_float64(infold.load(proto), {"x": x}).values())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("relu", [False, True])
def test_prologue_costs_no_pass(relu, readers, stride, threads):
    session, outputs, reference = run(model(np.random.default_rng(1), relu, readers, stride=stride), threads)
    for y, r in zip(outputs, reference, strict=True):
        assert np.ptp(r) > 1 and np.abs(y - r).max() <= 2e-6 * np.abs(r).max()
    x = np.zeros((2, 19, 9, 8), np.float32)
    assert "affine" not in {record.kernel for record in session.profile({"x": x}, runs=1)}


@pytest.mark.parametrize("case", [{"kernel": 3}, {"also_output": True}, {"channels": 2305}])
def test_where_it_is_no_prologue_the_result_is_right_too(case):
    session, outputs, reference = run(model(np.random.default_rng(2), True, 1, **case), 1)
    for y, r in zip(outputs, reference, strict=True):
        assert np.ptp(r) > 1 and np.abs(y - r).max() <= 2e-6 * np.abs(r).max()
    x = np.zeros((2, case.get("channels", 19), 9, 8), np.float32)
    assert "affine" in {record.kernel for record in session.profile({"x": x}, runs=1)}


def excited(kernel: int = 1, flip: bool = False):
    """x * sigmoid(pooled x), as squeeze-and-excitation does, then two convolutions."""
    net = Net(4)
    x = net.input(3, 19, 9, 8)
    gate = net("Sigmoid", net("Conv", net("GlobalAveragePool", x), net.weight(19, 19, 1, 1)))
    y = net("Mul", *((gate, x) if flip else (x, gate)))
    pads = [kernel // 2] * 4
    return net, [net("Conv", y, net.weight(7, 19, kernel, kernel), pads=pads), net("Conv", y, net.weight(33, 19, 1, 1))]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
def test_factors_of_each_image_and_channel_are_a_prologue(kernel: int, flip: bool):
    net, outputs = excited(kernel, flip)
    checked = check(net, *outputs)
    kernels = [record.kernel for record in checked.profile(net.feeds, runs=1)]
    assert ("binary.mul" in kernels) == (kernel == 3)  # a larger kernel would scale every pixel once per tap
