"""Caffe nets written by the tests, and their results by onnxruntime, infold and OpenCV."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import infold
from infold.importers import caffe
from infold.importers.caffe_schema import MESSAGES

SHAPES = [(2, 6, 5, 7), (1, 6, 1, 9), (3, 6, 8, 2)]


class Net:
    """A prototxt and a caffemodel that grow layer by layer; weights are random unless given."""

    def __init__(self, **inputs: tuple[int, ...]) -> None:
        self.inputs, self.rng = inputs, np.random.default_rng(len(inputs) + sum(map(sum, inputs.values())))
        self.text = "".join(
            layer_text(name, "Input", [], [name], "input_param { " + shape_text(shape) + "}") for name, shape in inputs.items()
        )
        self.weights = MESSAGES["NetParameter"]()

    def layer(self, kind, bottoms=("x",), tops=("y",), params="", blobs=(), name=None):
        name = name or "/".join(tops) + "_" + kind.lower()
        self.text += layer_text(name, kind, bottoms, tops, params)
        if blobs:
            stored = self.weights.layer.add(name=name, type=kind)
            for blob in blobs:
                blob = self.random(*blob) if isinstance(blob, tuple) else np.asarray(blob, np.float32)
                stored.blobs.append(blob_message(blob))
        return self

    def random(self, *shape):
        return self.rng.normal(size=shape).astype(np.float32)

    @property
    def caffemodel(self) -> bytes:
        return self.weights.SerializeToString()

    def load(self, **options) -> ir.Model:
        return caffe.loads(self.text, self.caffemodel if len(self.weights.layer) else None, **options)

    def feeds(self) -> dict[str, np.ndarray]:
        return {name: self.random(*shape) for name, shape in self.inputs.items()}

    def opencv(self, feeds):
        """OpenCV's results of all outputs. It wants at least one byte of weights."""
        cv2 = pytest.importorskip("cv2", reason='pip install "opencv-python-headless<5"')
        net = cv2.dnn.readNetFromCaffe(
            np.frombuffer(self.text.encode(), np.uint8), np.frombuffer(self.caffemodel or b"\x0a\x00", np.uint8)
        )
        for name, value in feeds.items():
            net.setInput(value, name)
        return net.forward(net.getUnconnectedOutLayersNames())


def layer_text(name, kind, bottoms, tops, params):
    ends = "".join(f' bottom: "{name}"' for name in bottoms) + "".join(f' top: "{name}"' for name in tops)
    return f'layer {{ name: "{name}" type: "{kind}"{ends} {params} }}\n'


def shape_text(shape):
    return "shape {" + "".join(f" dim: {dim}" for dim in shape) + " } "


def blob_message(array, **fields):
    message = MESSAGES["BlobProto"](data=[np.asarray(array, "<f4").tobytes()], **fields)
    if not fields:
        message.shape.dim.extend(np.shape(array))
    return message


def check(net: Net, feeds=None, want=None, *, opencv=True, tolerance=2e-6):
    """Convert, and compare onnxruntime's and infold's results with OpenCV's, with `want`, or with both.

    The shapes computed from Caffe's rules must be those of ONNX's own shape inference.
    """
    model, feeds = net.load(), feeds or net.feeds()
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    given = {value.name: value for value in proto.graph.value_info}
    for value in inferred.graph.value_info:
        if all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim):
            assert value == given[value.name]
    feeds = {value.name: feeds[value.name] for value in model.graph.inputs}
    results = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    own = infold.InferenceSession(model).run(None, feeds)
    wanted = ([] if want is None else [want]) + ([net.opencv(feeds)] if opencv else [])
    assert wanted, "nothing to compare with"
    for expected in wanted:
        assert len(expected) == len(results) == len(own)
        for y, ours, ideal in zip(results, own, expected):
            assert y.shape == ours.shape == ideal.shape
            scale = max(np.abs(ideal).max(), 1e-3)
            assert np.ptp(ideal) > 0 or ideal.size < 2, "a constant result proves nothing"
            np.testing.assert_allclose(y, ideal, rtol=0, atol=tolerance * scale)
            np.testing.assert_allclose(ours, ideal, rtol=0, atol=tolerance * scale)
    return model


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]
