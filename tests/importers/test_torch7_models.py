"""Whole Torch7 networks: OpenCV's importer as oracle, BatchNorms folded, nngraph, input shapes read from the layers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from torch7_networks import autoencoder, conv, inception, lenet, linear, norm, pool, random, residual, resnet, sequential
from torch7_writer import Storage, View, check, dump, module, run, table

import infold
from infold.errors import UnsupportedError
from infold.importers import torch7

torch = pytest.importorskip("torch", reason="it is the oracle")
F = torch.nn.functional


@pytest.fixture
def cv2():
    module = pytest.importorskip("cv2", reason="it is the oracle")
    if not hasattr(module.dnn, "readNetFromTorch"):
        pytest.skip("OpenCV 5 reads no Torch7 files")
    return module


@pytest.mark.parametrize("build", [resnet, inception, lenet, autoencoder])
def test_networks_as_opencv_runs_them(build, tmp_path, cv2):
    network, x = build(), random(2, 3, 32, 32)
    path = tmp_path / "network.t7"
    path.write_bytes(dump(network))
    oracle = cv2.dnn.readNetFromTorch(str(path), True, True)
    oracle.setInput(x)
    expected = oracle.forward()
    model = check(network, x, expected, tolerance=5e-6)
    assert ir.Shape(["N", 3, "H", "W"]) == model.graph.inputs[0].shape
    again = infold.InferenceSession(str(path)).run(None, {"input": x})
    assert np.abs(again[0] - expected).max() <= 5e-6 * np.abs(expected).max()


def test_ascii_as_opencv_reads_it(tmp_path, cv2):
    path = tmp_path / "network.t7"
    path.write_bytes(dump(network := resnet(), ascii=True))
    oracle = cv2.dnn.readNetFromTorch(str(path), False, True)
    oracle.setInput(x := random(1, 3, 32, 32))
    check(network, x, oracle.forward(), tolerance=5e-6)
    np.testing.assert_array_equal(run(torch7.load(path), x)[0], run(torch7.load(dump(network)), x)[0])


def test_batch_norms_of_a_resnet_all_fold():
    model = torch7.load(dump(resnet()))
    folded, report = infold.fold(model)
    assert (report.batchnorms, report.folded, report.remaining) == (6, 6, 0)
    assert "5.1.1.2.SpatialBatchNormalization" in {item.name for item in report.items}
    assert not [node for node in folded.graph if node.op_type == "BatchNormalization"]


def test_shared_modules_share_weights():
    shared = conv(4, 4)
    model = torch7.load(dump(sequential(shared, module("ReLU"), shared)), shape=(1, 4, 6, 6))
    assert set(model.graph.initializers) == {"1.weight", "1.bias"}
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Conv"]


def test_flattened_parameters():
    """After getParameters() all weights are views of one storage."""
    flat = Storage(random(100))
    first, second = View(flat, (4, 5), (5, 1), 1), View(flat, (3, 4), (4, 1), 21)
    network = sequential(module("LinearNoBias", weight=first), module("LinearNoBias", weight=second))
    x, values = random(2, 5), flat.values.astype(np.float64)
    check(network, x, x @ values[:20].reshape(4, 5).T @ values[20:32].reshape(3, 4).T)


def test_input_shapes_are_read_from_the_layers():
    shape = lambda network: list(torch7.load(dump(network)).graph.inputs[0].shape)  # noqa: E731
    assert shape(sequential(module("SpatialZeroPadding", pad_l=1, pad_r=1, pad_t=1, pad_b=1), pool("Max", 2, 2), conv(5, 4))) == [
        "N",
        5,
        "H",
        "W",
    ]
    assert shape(sequential(module("Dropout", p=0.5, v2=True), linear(7, 3))) == ["N", 7]
    assert shape(table(module("Identity"), conv(2, 2))) == ["N", 2, "H", "W"]
    assert shape(sequential(norm(6), module("ReLU"))) == ["N", 6, "H", "W"]


def test_a_checkpoint_with_one_network():
    x = random(1, 4)
    subject = linear(4, 2)
    model = torch7.load(dump({"epoch": 12, "model": subject, "optimState": {"learningRate": 0.1}}))
    np.testing.assert_allclose(run(model, x)[0], x @ subject.fields["weight"].T + subject.fields["bias"], rtol=1e-5, atol=1e-6)


def test_the_shape_given_wins():
    model = torch7.load(dump(conv(3, 4)), shape=("batch", 3, 16, None))
    assert list(model.graph.inputs[0].shape) == ["batch", 3, 16, "dim_3"]
    with pytest.raises(TypeError, match="dimension -1"):
        torch7.load(dump(conv(3, 4)), shape=(-1, 3, 16, 16))
    with pytest.raises(TypeError, match="sequence"):
        torch7.load(dump(conv(3, 4)), shape=3)


@pytest.mark.parametrize(
    "network", [module("View", size=(10,)), module("Identity"), sequential(), module("CAddTable")], ids=lambda n: n.name
)
def test_an_input_shape_that_must_be_given(network):
    with pytest.raises(UnsupportedError, match="shape of the input"):
        torch7.load(dump(network))


def test_identities_and_repeated_outputs():
    x = random(2, 3)
    check(table(module("Identity"), module("Identity")), x, [x.astype(np.float64)] * 2, shape=x.shape)


def test_torch_agrees_on_a_residual_block():
    """OpenCV computes in float32; here is float64."""
    block, x = residual(4, 4, 1), random(1, 4, 6, 6)
    branch = block.fields["modules"][0].fields["modules"][0].fields["modules"]
    t = torch.from_numpy(x).double()
    for layer in branch:
        values = {key: torch.from_numpy(value).double() for key, value in layer.fields.items() if isinstance(value, np.ndarray)}
        if "Convolution" in layer.name:
            t = F.conv2d(t, values["weight"], values["bias"], padding=1)
        elif "Norm" in layer.name:
            t = F.batch_norm(t, values["running_mean"], values["running_var"], values["weight"], values["bias"])
        else:
            t = F.relu(t)
    check(block, x, F.relu(t + torch.from_numpy(x).double()).numpy())


def test_load_takes_the_shape(tmp_path):
    (tmp_path / "linear.t7").write_bytes(dump(sequential(module("Identity"), module("Tanh"))))
    model = infold.load(tmp_path / "linear.t7", shape=(2, 3))
    assert list(model.graph.outputs[0].shape) == [2, 3]
    with pytest.raises(TypeError, match="example_inputs"):
        infold.load(tmp_path / "linear.t7", example_inputs=random(2, 3))
