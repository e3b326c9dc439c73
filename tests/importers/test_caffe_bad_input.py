"""Caffe nets that contradict themselves, and damaged files: a typed error that names the layer, nothing else."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from caffe_harness import Net, blob_message, layer_text, shape_text
from hypothesis import given, settings
from hypothesis import strategies as st

from infold.errors import Error, InvalidModelError, UnsupportedError
from infold.importers import caffe
from infold.importers.caffe_schema import MESSAGES

CONV = "convolution_param { num_output: 4 kernel_size: 3 %s }"


def conv(params="", blobs=((4, 2, 3, 3), (4,)), shape=(1, 2, 8, 8)):
    return Net(x=shape).layer("Convolution", params=CONV % params, blobs=blobs)


def model():
    """A net of several kinds of layers, as text and weights."""
    net = conv().layer("BatchNorm", ["y"], ["y"], blobs=[(4,), (4,), (1,)]).layer("ReLU", ["y"], ["y"])
    return net.layer("InnerProduct", ["y"], ["z"], "inner_product_param { num_output: 3 }", [(3, 144), (3,)])


# ---- weights ----


@pytest.mark.parametrize(
    "blobs, message",
    [
        ([(4, 2, 3, 3)], r"needs the blob 1 \(bias\) of shape \[4\]"),
        ([(4, 2, 3, 2), (4,)], r"shape \[4, 2, 3, 2\], needs \[4, 2, 3, 3\]"),
        ([(2, 4, 3, 3), (4,)], r"needs \[4, 2, 3, 3\]"),
        ([(4, 2, 3, 3), (5,)], r"\[5\], needs \[4\]"),
        ([], r"needs the blob 0 \(weight\)"),
    ],
)
def test_blobs_of_wrong_shape(blobs, message):
    with pytest.raises(InvalidModelError, match=f"'y_convolution' \\(Convolution\\).*{message}"):
        conv(blobs=blobs).load()


@pytest.mark.parametrize(
    "dims, size", [([4, 2, 3, 3], 71), ([-4, -2, 3, 3], 72), ([2**62, 2, 3, 3], 72), ([2**31, 2**31, 2**31], 0), ([0], 1)]
)
def test_blobs_whose_data_do_not_fit(dims, size):
    net = conv()
    net.weights.layer[0].blobs[0].CopyFrom(blob_message(np.zeros(size)))
    net.weights.layer[0].blobs[0].shape.dim[:] = dims
    with pytest.raises(InvalidModelError, match=r"'y_convolution'.*blob 0 \(weight\) declares the shape"):
        net.load()


def test_blobs_of_integers():
    net = conv()
    net.weights.layer[0].blobs[0].CopyFrom(MESSAGES["BlobProto"](raw_data=b"1234", raw_data_type=3))
    with pytest.raises(UnsupportedError, match="integers"):
        net.load()


# ---- the graph ----

DIMS = 'input: "x" input_dim: 1 input_dim: 2 input_dim: 4 input_dim: 4 '


@pytest.mark.parametrize(
    "text, message",
    [
        (DIMS + layer_text("r", "ReLU", ["nowhere"], ["y"], ""), "'r'.*'nowhere'.*no layer produces"),
        (
            DIMS + layer_text("a", "ReLU", ["c"], ["b"], "") + layer_text("d", "ReLU", ["b"], ["c"], ""),
            "'a'.*'c'.*only later, by layer 'd'.*cycle",
        ),
        (DIMS + layer_text("a", "ReLU", ["b"], ["b"], ""), "'a'.*'b'.*cycle"),
        (DIMS + layer_text("a", "ReLU", ["x"], ["y"], "") + layer_text("b", "TanH", ["x"], ["y"], ""), "'b'.*'y'.*already exists"),
        (DIMS + layer_text("a", "TanH", ["x"], ["y", "z"], ""), "'a'.*makes 1 blobs.*2"),
        (DIMS + layer_text("a", "TanH", ["x", "x"], ["y"], ""), "'a'.*2 bottoms, needs 1"),
        (DIMS + layer_text("a", "TanH", [], ["y"], ""), "'a'.*0 bottoms, needs 1"),
        (DIMS + layer_text("a", "Eltwise", ["x"], ["y"], ""), "'a'.*needs at least 2"),
        (DIMS + layer_text("a", "Silence", ["x"], [], ""), "computes nothing"),
        (DIMS, "no layers"),
        (DIMS + 'layer { name: "a" bottom: "x" top: "y" }', "'a' has no type"),
        (
            DIMS + layer_text("a", "ReLU", ["x"], ["y"], "include { phase: TEST } exclude { phase: TRAIN }"),
            "'a'.*include and exclude",
        ),
        (DIMS + layer_text("a", "ReLU", ["x"], ["y"], "") + 'layers { name: "b" type: RELU bottom: "y" top: "z" }', "mixes"),
        (DIMS.replace("input_dim: 4", "", 1) + layer_text("a", "ReLU", ["x"], ["y"], ""), "3 input_dim"),
        (
            DIMS.replace("dim: 1", "dim: -1", 1) + layer_text("a", "ReLU", ["x"], ["y"], ""),
            r"'x'.*impossible shape \[-1, 2, 4, 4\]",
        ),
        (DIMS.replace("dim: 1", "dim: 2147483647", 1) + layer_text("a", "ReLU", ["x"], ["y"], ""), "'x'.*impossible shape"),
        (DIMS + 'input: "x" ' + layer_text("a", "ReLU", ["x"], ["y"], ""), "two inputs called 'x'"),
    ],
)
def test_broken_graphs(text, message):
    with pytest.raises(InvalidModelError, match=message):
        caffe.loads(text)


@pytest.mark.parametrize(
    "kind, params, field",
    [
        ("Power", "power_param { scale: nan }", "PowerParameter.scale"),
        ("Eltwise", "eltwise_param { coeff: 1 coeff: inf }", "EltwiseParameter.coeff"),
        ("PriorBox", "prior_box_param { min_size: 1 aspect_ratio: -inf }", "PriorBoxParameter.aspect_ratio"),
        ("DetectionOutput", "detection_output_param { nms_param { eta: nan } }", "NonMaximumSuppressionParameter.eta"),
    ],
)
def test_parameters_that_are_no_numbers(kind, params, field):
    with pytest.raises(InvalidModelError, match=f"'a' \\({kind}\\): {field} is .*finite"):
        caffe.loads(DIMS + layer_text("a", kind, ["x"], ["y"], params))


@pytest.mark.parametrize("tops", [["y", "y"], [""]])
def test_tops_need_names_of_their_own(tops):
    with pytest.raises(InvalidModelError, match=r"'a'.*must have names"):
        caffe.loads(DIMS + layer_text("a", "Split", ["x"], tops, ""))


def test_inputs_need_names():
    with pytest.raises(InvalidModelError, match="without a name"):
        caffe.loads(DIMS.replace('"x"', '""') + layer_text("a", "ReLU", [""], ["y"], ""))


def test_too_many_axes():
    text = layer_text("x", "Input", [], ["x"], "input_param { " + shape_text((1,) * 33) + "}") + layer_text(
        "y", "ReLU", ["x"], ["y"], ""
    )
    with pytest.raises(InvalidModelError, match=r"'x'.*impossible shape"):
        caffe.loads(text)


def test_unknown_layers():
    with pytest.raises(UnsupportedError, match=r"'a' \(Quantum\).*'Quantum'"):
        caffe.loads(DIMS + layer_text("a", "Quantum", ["x"], ["y"], ""))


# ---- parameters ----


@pytest.mark.parametrize(
    "params, message",
    [
        ("stride: 0", r"stride is \[0, 0\]"),
        ("dilation: 0", "dilation"),
        ("group: 0", "0 groups"),
        ("group: 3", "3 groups"),
        ("pad: 4294967295", "pad is"),
        ("kernel_size: 3 kernel_size: 3", "kernel_size has 3 numbers"),
        ("stride_h: 1", "stride is"),
        ("kernel_h: 3 kernel_w: 3", "exclude"),
        ("axis: 2", "axis 2"),
        ("dilation: 4", "larger than the blob"),
    ],
)
def test_convolution_parameters(params, message):
    with pytest.raises(InvalidModelError, match=f"'y_convolution'.*{message}"):
        conv(params).load()


@pytest.mark.parametrize(
    "kind, params, message",
    [
        ("Deconvolution", CONV % "pad: 9", "leaves nothing"),
        ("Deconvolution", CONV % "stride: 2147483647", "would make a blob|needs the blob"),
        ("InnerProduct", "inner_product_param { axis: 4 num_output: 2 }", "axis 4 is out of range"),
        ("InnerProduct", "", "num_output"),
        ("Concat", "concat_param { axis: -5 }", "axis -5"),
        ("Concat", "concat_param { concat_dim: 4294967295 }", "out of range"),
        ("Slice", "slice_param { slice_point: 2 }", "cannot cut"),
        ("Slice", "slice_param { slice_point: 1 slice_point: 1 }", "cannot cut"),
        ("Flatten", "flatten_param { axis: 3 end_axis: 1 }", "behind"),
        ("Flatten", "flatten_param { axis: 9 }", "axis 9"),
        ("Reshape", "reshape_param { shape { dim: 7 dim: -1 } }", "cannot turn"),
        ("Reshape", "reshape_param { shape { dim: -1 dim: -1 } }", "one -1"),
        ("Reshape", "reshape_param { shape { dim: 5 } }", "cannot turn"),
        ("Reshape", "reshape_param { axis: 1 num_axes: 9 }", "exceeds"),
        ("Reshape", "reshape_param { shape { dim: 1 dim: 1 dim: 1 dim: 1 dim: 0 } }", "no such axis"),
        ("Reshape", "reshape_param { num_axes: -2 }", "exceeds"),
        ("Reshape", "reshape_param { shape { dim: -9223372036854775808 } }", "one -1"),
        ("Permute", "permute_param { order: 1 order: 1 }", "order"),
        ("Permute", "permute_param { order: 7 }", "order"),
        ("Softmax", "softmax_param { axis: 4 }", "axis 4"),
        ("LRN", "lrn_param { local_size: 4 }", "odd"),
        ("Tile", "", "would make"),
        ("Tile", "tile_param { tiles: 2147483647 }", "would make"),
        ("Tile", "tile_param { tiles: -1 }", "would make"),
        ("Reduction", "reduction_param { axis: 4 }", "axis 4"),
        ("ArgMax", "argmax_param { top_k: 99 }", "top_k"),
        ("Log", "log_param { base: 1 }", "cannot be 1"),
        ("Exp", "exp_param { base: -2 }", "must be positive"),
        ("ShuffleChannel", "shuffle_channel_param { group: 3 }", "do not divide"),
        ("Interp", "interp_param { pad_beg: 1 }", "positive"),
        ("Interp", "interp_param { height: 0 width: 0 }", "would make"),
        ("Interp", "interp_param { zoom_factor: 0 }", "must be positive"),
        ("Interp", "interp_param { pad_beg: -3 pad_end: -3 }", "would make"),
        ("Interp", "interp_param { zoom_factor: 2147483647 }", "would make"),
        ("Upsample", "upsample_param { scale: -1 }", "must be positive"),
        ("Upsample", "upsample_param { scale: 2147483647 }", "would make"),
        ("Scale", "scale_param { axis: 4 }", "axis 4"),
        ("Scale", "scale_param { num_axes: 9 }", "num_axes 9"),
        ("BatchNorm", "", "scale factor"),
    ],
)
def test_other_parameters(kind, params, message):
    with pytest.raises(InvalidModelError, match=message) as caught:
        Net(x=(1, 2, 4, 4)).layer(kind, params=params).load()
    assert "'y_" in str(caught.value)


@pytest.mark.parametrize(
    "kind, params, other, message",
    [
        ("Eltwise", "", (1, 2, 4, 5), "differ in shape"),
        ("Eltwise", "eltwise_param { coeff: 1 }", (1, 2, 4, 4), "1 coefficients"),
        ("Concat", "", (1, 2, 4, 5), "cannot join"),
        ("Crop", "", (1, 2, 5, 4), "cannot cut"),
        ("Crop", "crop_param { offset: 1 }", (1, 2, 4, 4), "cannot cut"),
        ("Crop", "crop_param { offset: 0 offset: 0 offset: 0 }", (1, 2, 4, 4), "cannot cut"),
        ("Scale", "", (3,), "second blob"),
        ("Upsample", "", (1, 2, 4, 4), "second top of a maximum"),
        ("PriorBox", "", (1, 3, 8, 8), "min_size"),
        ("PriorBox", "prior_box_param { min_size: 3 max_size: 2 }", (1, 3, 8, 8), "max_size"),
        ("PriorBox", "prior_box_param { min_size: 3 aspect_ratio: 0 }", (1, 3, 8, 8), "aspect ratio"),
        ("PriorBox", "prior_box_param { min_size: 3 variance: 1 variance: 1 }", (1, 3, 8, 8), "variances"),
    ],
)
def test_two_bottoms_that_do_not_fit(kind, params, other, message):
    with pytest.raises(InvalidModelError, match=f"'y_.*{message}"):
        Net(x=(1, 2, 4, 4), z=other).layer(kind, ["x", "z"], params=params).load()


# ---- damaged files ----


def test_every_truncation_of_the_weights():
    net = model()
    data = net.caffemodel
    caffe.loads(net.text, data)
    for end in [*range(0, 40), *range(40, len(data), 97), len(data) - 1]:
        with pytest.raises(InvalidModelError):
            caffe.loads(net.text, data[:end])


def test_every_truncation_of_the_text():
    net = model()
    for end in range(0, len(net.text.rstrip()) - 2, 7):
        try:
            caffe.loads(net.text[:end], net.caffemodel)
        except InvalidModelError:
            continue
        assert net.text[:end].count("{") == net.text[:end].count("}"), "a net that ends inside a layer was accepted"


@pytest.mark.filterwarnings("ignore:the prototxt has fields")
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_files(data):
    """Bytes changed at random, in the text or in the weights: a model or a typed error, and nothing else."""
    net = model()
    parts = [bytearray(net.text.encode()), bytearray(net.caffemodel)]
    for _ in range(data.draw(st.integers(1, 4))):
        part = parts[data.draw(st.integers(0, 1))]
        part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Error):
        caffe.loads(bytes(parts[0]), bytes(parts[1]))


@pytest.mark.parametrize(
    "text",
    [
        "layer {",
        "layer { type: 3 }",
        'layer { type: "ReLU" ',
        "\0\0\0",
        "}" * 9,
        "layer { pooling_param { pool: MEDIAN } }",
        "layer { unknown " + "{ a " * 5000 + "} " * 5000 + "}",
    ],
)
def test_text_that_is_no_net(text):
    with pytest.raises(InvalidModelError, match="not a Caffe net in text format"):
        caffe.loads(text)


def test_giant_text():
    with pytest.raises(InvalidModelError, match="limit"):
        caffe.loads("#" * (9 << 20))


def test_files(tmp_path):
    net = model()
    paths = {name: tmp_path / name for name in ("net.prototxt", "net.caffemodel")}
    with pytest.raises(InvalidModelError, match=r"net.prototxt: cannot be opened: No such file"):
        caffe.load(paths["net.prototxt"])
    paths["net.prototxt"].write_text(net.text)
    for content, kind, message in (
        (b"", InvalidModelError, "empty"),
        (b"\x89HDF\r\n", UnsupportedError, "HDF5"),
        (b"text", InvalidModelError, "not a Caffe model"),
    ):
        paths["net.caffemodel"].write_bytes(content)
        with pytest.raises(kind, match=message):
            caffe.load(paths["net.prototxt"])
    paths["net.caffemodel"].unlink()
    paths["net.caffemodel"].mkdir()
    with pytest.raises(InvalidModelError, match=r"net.caffemodel: is a directory"):
        caffe.load(paths["net.prototxt"])


def test_sizes_that_overflow():
    text = layer_text("x", "Input", [], ["x"], "input_param { " + shape_text((2**31 - 1, 1)) + "}") + layer_text(
        "y", "Tile", ["x"], ["y"], "tile_param { tiles: 2 }"
    )
    with pytest.raises(InvalidModelError, match="would make a blob"):
        caffe.loads(text)
