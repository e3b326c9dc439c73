"""What a model with its preprocessing in front computes of pixels, and what of it is folded."""
from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import infold
from infold.preprocess.graph import embed

IMAGENET = infold.Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
PIXELS = np.random.default_rng(1).integers(0, 256, (2, 12, 10, 3), np.uint8)


def network(pads: int = 0, *, last: bool = False, opset: int = 20, kind: int = TensorProto.FLOAT, channels: int = 3) -> ir.Model:
    """A convolution and a ReLU over x [N, 3, H, W], or [N, H, W, 3] and a Transpose before them."""
    rng = np.random.default_rng(7)
    nodes = [helper.make_node("Transpose", ["x"], ["p"], perm=[0, 3, 1, 2])] if last else []
    nodes += [helper.make_node("Conv", ["p" if last else "x", "w", "b"], ["c"], "conv", pads=[pads] * 4),
              helper.make_node("Relu", ["c"], ["y"])]
    weights = [numpy_helper.from_array(rng.normal(size=shape).astype(helper.tensor_dtype_to_np_dtype(kind)), name)
               for name, shape in (("w", (8, channels, 3, 3)), ("b", (8,)))]
    x = helper.make_tensor_value_info("x", kind, ["N", "H", "W", channels] if last else ["N", channels, "H", "W"])
    graph = helper.make_graph(nodes, "g", [x], [helper.make_tensor_value_info("y", kind, ["N", 8, "H2", "W2"])], weights)
    return infold.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))


def expected(model: ir.Model, preprocess: infold.Preprocess, name: str = "x", pixels: np.ndarray = PIXELS) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: preprocess([image.squeeze() for image in pixels])})[0]


CASES = {
    "valid": ({}, IMAGENET, "folded"),
    "padded": ({"pads": 1}, IMAGENET, "kept"),
    "padded, scale only": ({"pads": 1}, infold.Preprocess(), "folded"),
    "padded, one number": ({"pads": 1}, infold.Preprocess(mean=0.5, std=0.5), "folded"),
    "channels last": ({"last": True}, infold.Preprocess(layout="nhwc", mean=(0.4, 0.5, 0.6)), "folded"),
    "opset 7": ({"opset": 7}, IMAGENET, "folded"),
    "bgr": ({}, infold.Preprocess(color="bgr", max_pixel_value=1, mean=(104, 117, 123)), "folded"),
}


@pytest.mark.parametrize("case", CASES)
def test_same_results_and_a_verdict(case: str):
    form, preprocess, verdict = CASES[case]
    model = network(**form)
    want = expected(model, preprocess)
    folded, report = infold.fold(embed(model, preprocess))
    [item] = report.items
    assert (item.name, item.verdict, item.into) == ("preprocess", verdict, "conv" if verdict == "folded" else None)
    assert verdict == "folded" or "pads with zeros" in item.reason
    proto = ir.to_proto(folded)
    onnx.checker.check_model(proto, full_check=True)
    feeds = {"x": preprocess.rest(PIXELS)}
    elsewhere = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    session = infold.InferenceSession(model, infold.SessionOptions(preprocess=preprocess))
    assert session.get_inputs()[0].type == "tensor(uint8)" and abs(want).max() > 1
    for [found] in (elsewhere.run(None, feeds), session.run(None, feeds)):
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5 * abs(want).max())
    assert session.report.fold.items[0].verdict == verdict


def test_a_real_model(tmp_path: Path):
    preprocess = infold.Preprocess(color="gray", mean=0.1307, std=0.3081)
    path = files("infold.demo") / "lenet.onnx"
    pixels = np.random.default_rng(2).integers(0, 256, (5, 28, 28, 1), np.uint8)
    want = expected(infold.load(path), preprocess, "image", pixels)
    options = infold.SessionOptions(preprocess=preprocess)
    session = infold.InferenceSession(path, options)
    [found] = session.run(None, {"image": pixels})
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    assert session.report.fold.remaining == 0 and session.report.fold.batchnorms == 5
    infold.compile(path, tmp_path / "a.infold", [{"image": pixels.shape}], options)
    [again] = infold.InferenceSession(tmp_path / "a.infold").run(None, {"image": pixels})
    np.testing.assert_array_equal(again, found)
    with pytest.raises(infold.UnsupportedError, match="compiled"):
        infold.InferenceSession(tmp_path / "a.infold", options)


def test_the_model_itself_is_left_alone():
    model = network()
    before = ir.to_proto(model).SerializeToString()
    infold.InferenceSession(model, infold.SessionOptions(preprocess=IMAGENET))
    assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize(("form", "fields", "error", "words"), [
    ({"opset": 6}, {}, infold.UnsupportedError, "of set 6"),
    ({"kind": TensorProto.FLOAT16}, {}, infold.UnsupportedError, "float32 image"),
    ({}, {"dtype": "float16"}, infold.InvalidInputError, "'dtype'"),
    ({}, {"color": "gray"}, infold.InvalidInputError, "'color'"),
    ({"channels": 4}, {}, infold.InvalidInputError, "3 channels, nchw"),
    ({"last": True, "channels": 4}, {"layout": "nhwc"}, infold.InvalidInputError, "3 channels, nhwc"),
])
def test_what_does_not_fit(form: dict, fields: dict, error: type, words: str):
    with pytest.raises(error, match=words):
        embed(network(**form), infold.Preprocess(**fields))
