from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("torch", reason="exporting needs torch and torchvision")

SPEC = importlib.util.spec_from_file_location("zoo", Path(__file__).parents[2] / "bench" / "zoo.py")
zoo = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(zoo)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


def test_a_raw_export_keeps_its_batchnorms_and_takes_any_batch(folder: Path) -> None:
    path = zoo.export("resnet18", "raw", folder, dynamic=True)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("BatchNormalization") == 20 and operators.count("Conv") == 20
    images = np.random.default_rng(0).standard_normal((3, 3, 224, 224), np.float32)
    (scores,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": images})
    assert scores.shape == (3, 1000) and np.isfinite(scores).all() and scores.std(axis=0).min() > 0


def test_what_exists_is_kept(folder: Path) -> None:
    (folder / "opt").mkdir(exist_ok=True)
    (folder / "opt" / "resnet50.onnx").write_bytes(b"exported before")
    assert zoo.export("resnet50", "opt", folder).read_bytes() == b"exported before"


@pytest.mark.parametrize(("name", "kind"), [("resnet0", "raw"), ("resnet18", "fast")])
def test_an_unknown_network(folder: Path, name: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' of kind '{kind}'"):
        zoo.export(name, kind, folder)
