"""The net around the layers: its generations, phases, inputs, blobs overwritten in place, weights in every encoding."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from caffe_harness import Net, blob_message, check, layer_text, ops, shape_text

import infold
from infold.errors import InvalidModelError
from infold.importers import caffe
from infold.importers.caffe_schema import MESSAGES

RELU = layer_text("r", "ReLU", ["x"], ["y"], "")
DIMS = 'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 '


def run(model, *inputs):
    session = infold.InferenceSession(model)
    return session.run(None, dict(zip([value.name for value in session.get_inputs()], inputs)))


# ---- BatchNorm's scale factor ----


def batch_norm(mean, variance, factor):
    return (
        Net(x=(1, 1, 1, 1)).layer("BatchNorm", blobs=[[mean], [variance], [factor]], params="batch_norm_param { eps: 1e-5 }").load()
    )


def test_batch_norm_divides_its_statistics_by_the_scale_factor():
    """A figure known from a trained net."""
    (y,) = run(batch_norm(-5122.504395, 385844.0625, 999.982361), np.full((1, 1, 1, 1), 0.001932, np.float32))
    assert y.item() == pytest.approx(0.260882, abs=1e-6)


def test_batch_norm_without_statistics():
    """A scale factor of 0 stands for mean and variance 0, as in Caffe."""
    (y,) = run(batch_norm(3, 5, 0), np.full((1, 1, 1, 1), 0.5, np.float32))
    assert y.item() == pytest.approx(0.5 / np.sqrt(1e-5), rel=1e-6)


def test_batch_norm_and_scale_fold_into_the_convolution():
    net = Net(x=(1, 3, 8, 8)).layer(
        "Convolution",
        ["x"],
        ["y"],
        "convolution_param { num_output: 4 kernel_size: 3 bias_term: false }",
        [(4, 3, 3, 3)],
        name="conv",
    )
    net.layer("BatchNorm", ["y"], ["y"], blobs=[(4,), [1, 2, 3, 4], [2]], name="conv/bn")
    net.layer("Scale", ["y"], ["y"], "scale_param { bias_term: true }", [(4,), (4,)], name="conv/scale").layer("ReLU", ["y"], ["y"])
    model = check(net, tolerance=1e-5)
    folded, report = infold.fold(model)
    assert report.remaining == 0 and report.batchnorms >= 1
    assert [node.op_type for node in folded.graph] == ["Conv", "Relu"]
    assert next(item for item in report.items if item.name == "conv/bn").verdict == "folded"


# ---- generations ----


def test_first_and_second_generation_mean_the_same():
    """One net, in the forms of 2013, 2014 and today, with the blobs where each form has them."""
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(4, 2, 3, 3)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    matrix = rng.normal(size=(5, 16)).astype(np.float32)
    legacy = lambda array: dict(zip(("num", "channels", "height", "width"), (1,) * (4 - array.ndim) + array.shape))  # noqa: E731
    blobs = [blob_message(array, **legacy(array)) for array in (weight, bias)], [blob_message(matrix, **legacy(matrix))]
    net = MESSAGES["NetParameter"]
    new = DIMS.replace("input_dim: 3 input_dim: 4", "input_dim: 4 input_dim: 4") + (
        layer_text("c", "Convolution", ["x"], ["c"], "convolution_param { num_output: 4 kernel_size: 3 pad: 1 group: 1 }")
        + layer_text("p", "Pooling", ["c"], ["p"], "pooling_param { pool: AVE kernel_size: 2 stride: 2 }")
        + layer_text("i", "InnerProduct", ["p"], ["i"], "inner_product_param { num_output: 5 bias_term: false }")
        + layer_text("s", "Softmax", ["i"], ["s"], "")
    )
    second = new
    for name, old in (
        ("Convolution", "CONVOLUTION"),
        ("Pooling", "POOLING"),
        ("InnerProduct", "INNER_PRODUCT"),
        ("Softmax", "SOFTMAX"),
    ):
        second = second.replace("layer {", "layers {").replace(f'type: "{name}"', f"type: {old}")
    head = new[: new.index("layer {")]
    first = head + "".join(
        f'layers {{ layer {{ name: "{name}" type: "{kind}" {params} }} bottom: "{bottom}" top: "{top}" }}\n'
        for name, kind, bottom, top, params in (
            ("pad", "padding", "x", "padded", "pad: 1"),
            ("c", "conv", "padded", "c", "num_output: 4 kernelsize: 3"),
            ("p", "pool", "c", "p", "pool: AVE kernelsize: 2 stride: 2"),
            ("i", "innerproduct", "p", "i", "num_output: 5 biasterm: false"),
            ("s", "softmax", "i", "s", ""),
        )
    )
    weights = net(), net(), net()
    for name, own in zip("ci", blobs):
        weights[0].layer.add(name=name).blobs.extend(own)
        weights[1].layers.add(name=name).blobs.extend(own)
        weights[2].layers.add().layer.MergeFrom(MESSAGES["V0LayerParameter"](name=name, blobs=own))
    models = [caffe.loads(text, weight.SerializeToString()) for text, weight in zip((new, second, first), weights)]
    assert ops(models[0]) == ops(models[1]) == ["Conv", "AveragePool", "Flatten", "Gemm", "Softmax"]
    assert ops(models[2]) == ["Pad", *ops(models[0])]
    x = rng.normal(size=(1, 2, 4, 4)).astype(np.float32)
    results = [run(model, x)[0] for model in models]
    assert np.ptp(results[0]) > 0.1
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-5)


@pytest.mark.parametrize(
    "kind", ["ABSVAL", "BNLL", "RELU", "TANH", "SIGMOID", "LRN", "MVN", "FLATTEN", "SOFTMAX", "DROPOUT", "EXP", "POWER"]
)
def test_names_of_the_second_generation(kind):
    net = caffe.loads(DIMS + f'layers {{ name: "n" type: {kind} bottom: "x" top: "y" }}')
    assert net.graph.outputs[0].name == "y"


# ---- phases ----


def test_only_the_test_phase_is_converted():
    data = (
        'layer { name: "d" type: "Data" top: "x" top: "label" include { phase: %s } transform_param { crop_size: %d } '
        "data_param { batch_size: 2 } }"
    )
    net = data % ("TRAIN", 9) + data % ("TEST", 5) + layer_text("r", "ReLU", ["x"], ["y"], "")
    net += layer_text("noise", "Dropout", ["y"], ["z"], "exclude { phase: TEST }")
    net += layer_text("late", "Sigmoid", ["y"], ["w"], 'include { stage: "deploy" }') + layer_text(
        "level", "Sigmoid", ["y"], ["w"], "include { min_level: 1 }"
    )
    net += layer_text("loss", "SoftmaxWithLoss", ["y", "label"], ["loss"], "") + layer_text(
        "a", "Accuracy", ["y", "label"], ["a"], ""
    )
    model = caffe.loads(net)
    assert [(value.name, value.shape.numpy()) for value in model.graph.inputs] == [("x", (2, 3, 5, 5))]
    assert ops(model) == ["Relu"] and [value.name for value in model.graph.outputs] == ["y"]
    assert ops(caffe.loads('state { stage: "deploy" } ' + net)) == ["Relu", "Sigmoid"]
    assert ops(caffe.loads("state { level: 2 } " + net)) == ["Relu", "Sigmoid"]


def test_silenced_blobs_are_no_outputs():
    net = DIMS + RELU + layer_text("s", "Sigmoid", ["x"], ["z"], "") + layer_text("q", "Silence", ["z"], [], "")
    assert [value.name for value in caffe.loads(net).graph.outputs] == ["y"]


# ---- inputs ----


@pytest.mark.parametrize(
    "text",
    [
        DIMS + RELU,
        'input: "x" input_shape { dim: 1 dim: 2 dim: 3 dim: 4 } ' + RELU,
        layer_text("data", "Input", [], ["x"], "input_param { " + shape_text((1, 2, 3, 4)) + " }") + RELU,
        layer_text("data", "DummyData", [], ["x"], "dummy_data_param { num: 1 channels: 2 height: 3 width: 4 }") + RELU,
        layer_text("data", "MemoryData", [], ["x", "label"], "memory_data_param { batch_size: 1 channels: 2 height: 3 width: 4 }")
        + RELU,
    ],
)
def test_inputs(text):
    model = caffe.loads(text)
    assert [(value.name, value.shape.numpy()) for value in model.graph.inputs] == [("x", (1, 2, 3, 4))]


def test_input_shapes_replace_those_of_the_net():
    model = caffe.loads(DIMS + RELU, input_shapes={"x": (8, 2, 5, 5)})
    assert model.graph.outputs[0].shape == (8, 2, 5, 5)
    with pytest.raises(InvalidModelError, match=r"'z'.*'x'"):
        caffe.loads(DIMS + RELU, input_shapes={"z": (1,)})


def test_a_data_layer_needs_a_shape():
    text = layer_text("data", "HDF5Data", [], ["x"], 'hdf5_data_param { source: "list" batch_size: 4 }') + RELU
    with pytest.raises(InvalidModelError, match=r"'x'.*input_shapes"):
        caffe.loads(text)
    assert caffe.loads(text, input_shapes={"x": (4, 3)}).graph.inputs[0].shape == (4, 3)


# ---- blobs overwritten in place ----


def test_blobs_overwritten_in_place_get_names_of_their_own():
    net = (
        Net(x=(1, 2, 3, 4))
        .layer("Sigmoid", ["x"], ["y"], name="first")
        .layer("Power", ["y"], ["y"], "power_param { scale: 3 }", name="second")
    )
    net.layer("TanH", ["y"], ["y"], name="third").layer("ELU", ["y"], ["z"], name="fourth")
    model = check(net)
    assert [node.name for node in model.graph] == ["first", "second/scale", "third", "fourth"]
    assert [node.outputs[0].name for node in model.graph] == ["y@first", "y@second", "y", "z"]


def test_an_input_overwritten_in_place_keeps_its_name():
    model = check(Net(x=(1, 2, 3, 4)).layer("Sigmoid", ["x"], ["x"], name="first").layer("TanH", ["x"], ["x"], name="last"))
    assert model.graph.inputs[0].name == "x" and [node.outputs[0].name for node in model.graph] == ["x@first", "x@last"]


def test_layers_of_one_name_stay_apart():
    net = DIMS + RELU + layer_text("r", "Sigmoid", ["y"], ["z"], "")
    assert [node.name for node in caffe.loads(net).graph] == ["r", "r_2"]


# ---- weights ----


@pytest.mark.parametrize(
    "fields",
    [
        lambda a: {"double_data": [a.astype("<f8").tobytes()]},
        lambda a: {"raw_data": a.astype("<f2").tobytes(), "raw_data_type": 2},
        lambda a: {"raw_data": a.tobytes(), "raw_data_type": 1},
        lambda a: {"data": [a.tobytes()[:8], a.tobytes()[8:]]},
    ],
)
def test_encodings_of_weights(fields):
    slopes = np.array([0.5, -0.25, 2], np.float32)
    blob = MESSAGES["BlobProto"](**fields(slopes))
    blob.shape.dim.append(3)
    net = Net(x=(1, 3, 2, 2)).layer("PReLU", name="p")
    net.weights.layer.add(name="p").blobs.append(blob)
    tensor = net.load().graph.initializers["p/slope"].const_value.numpy()
    assert tensor.dtype == np.float32 and tensor.ravel().tolist() == slopes.tolist()


def test_unknown_fields_are_skipped_with_a_warning():
    with pytest.warns(UserWarning, match="made_up"):
        assert ops(caffe.loads(DIMS + RELU.replace("}", "relu_param { made_up: 3 } }"))) == ["Relu"]


def test_comments_in_other_encodings():
    assert ops(caffe.loads(b"# \xb5\xda\xd2\xbb\xb2\xe3\n" + (DIMS + RELU).encode())) == ["Relu"]


# ---- files ----


@pytest.fixture
def files(tmp_path):
    net = Net(x=(1, 3, 2, 2)).layer("PReLU", blobs=[(3,)])
    (tmp_path / "net.prototxt").write_text(net.text)
    (tmp_path / "net.caffemodel").write_bytes(net.caffemodel)
    return tmp_path


def test_the_partner_is_found_beside_the_file(files):
    for name in ("net.prototxt", "net.caffemodel"):
        assert isinstance(infold.load(files / name), ir.Model)
    assert infold.InferenceSession(str(files / "net.caffemodel")).get_inputs()[0].name == "x"


def test_the_partner_may_lie_elsewhere(files):
    (files / "net.prototxt").rename(files / "deploy.prototxt")
    with pytest.raises(InvalidModelError, match=r"deploy.prototxt.*weights="):
        infold.load(files / "deploy.prototxt")
    with pytest.raises(InvalidModelError, match=r"net.prototxt: cannot be opened: No such file"):
        infold.load(files / "net.caffemodel")
    for model in (
        infold.load(files / "deploy.prototxt", weights=files / "net.caffemodel"),
        infold.load(files / "net.caffemodel", prototxt=files / "deploy.prototxt", input_shapes={"x": (2, 3, 1, 1)}),
    ):
        assert ops(model) == ["PRelu"]
