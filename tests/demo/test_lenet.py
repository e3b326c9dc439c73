"""The shipped LeNet and its trainer."""
from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

import infold
from infold import demo
from infold.demo import lenet

FOLDER = Path(demo.__file__).parent
TRAINER = FOLDER / "train_lenet.py"


def right(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(1) == labels).mean())


def trainer() -> ModuleType:
    for package in ("torch", "sklearn", "onnxscript"):
        pytest.importorskip(package)
    spec = spec_from_file_location("train_lenet", TRAINER)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shipped_model_keeps_its_batchnorms_and_a_dynamic_batch():
    model = onnx.load(lenet.MODEL)
    onnx.checker.check_model(model, full_check=True)
    batchnorms = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert batchnorms == ["bn1", "bn2", "bn3", "bn4"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    shipped = [path for path in FOLDER.iterdir() if path.suffix in {".onnx", ".npz", ".jpg"}]
    assert len(shipped) == 3 and sum(path.stat().st_size for path in shipped) < 1_000_000


def test_accuracy_with_onnxruntime():
    onnxruntime = pytest.importorskip("onnxruntime")
    images, labels = lenet.test_set()
    session = onnxruntime.InferenceSession(str(lenet.MODEL), providers=["CPUExecutionProvider"])
    assert right(session.run(None, {"image": images})[0], labels) > 0.985


@pytest.mark.parametrize("batch", [1, 7, 360])
def test_accuracy_with_infold(batch: int):
    images, labels = lenet.test_set()
    session = infold.InferenceSession(lenet.MODEL)
    logits = [session.run(None, {"image": images[i:i + batch]})[0] for i in range(0, len(images), batch)]
    assert right(np.concatenate(logits), labels) > 0.985


def test_every_batchnorm_folds():
    model, report = infold.fold(infold.load(lenet.MODEL))
    assert (report.batchnorms, report.folded, report.remaining) == (4, 4, 0)
    places = {item.name: item.into for item in report.items}
    assert places == {"bn1": "conv1", "bn2": "conv2", "bn3": "dense3", "bn4": "dense4"}
    assert not [node for node in model.graph if node.op_type == "BatchNormalization"]


def test_shipped_digits_are_the_ones_held_out():
    train_images, test_images, _, test_labels = trainer().digits()
    with np.load(lenet.DIGITS, allow_pickle=False) as shipped:
        np.testing.assert_array_equal(shipped["images"], test_images)
        np.testing.assert_array_equal(shipped["labels"], test_labels)
    seen = {image.tobytes() for image in train_images}
    assert not [image for image in test_images if image.tobytes() in seen]


def test_trainer_trains_and_exports(tmp_path: Path):
    trainer()
    done = subprocess.run([sys.executable, TRAINER, "--epochs", "4", "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"test accuracy: ([\d.]+)", done.stdout)[1]) > 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.npz", "lenet.onnx"]
    model = onnx.load(tmp_path / "lenet.onnx")
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 4
    images, labels = lenet.test_set()
    assert right(infold.InferenceSession(model).run(None, {"image": images})[0], labels) > 0.8
