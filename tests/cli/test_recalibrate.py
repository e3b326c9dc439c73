from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import infold


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten grey pictures, in two folders, of several formats and sizes; and a file that is none."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for index in range(10):
        folder = tmp_path / "pictures" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        array = rng.integers(0, 256, (28, 28 if index < 8 else 40), np.uint8)
        image.fromarray(array).save(folder / f"{index}.{'png' if index % 3 else 'bmp'}")
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    return tmp_path / "pictures"


def batchnorm_means(path: Path) -> list[np.ndarray]:
    model = onnx.load(path)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [weights[node.input[3]] for node in model.graph.node if node.op_type == "BatchNormalization"]


def test_pictures(cli: Callable, lenet: Path, pictures: Path, tmp_path: Path) -> None:
    from PIL import Image

    before, out, declared = lenet.read_bytes(), tmp_path / "new.onnx", tmp_path / "digits.toml"
    declared.write_text('color = "gray"\nresize = [28, 28]\nmean = 0.5\nstd = 0.25\n')
    result = cli("recalibrate", lenet, "--images", pictures, "-o", out, "--preprocess", declared, "--batch", "4", "--json")
    assert result.code == 0 and lenet.read_bytes() == before
    document = result.json
    assert {key: document[key] for key in ("batchnorms", "recalibrated", "samples")} == {
        "batchnorms": 4,
        "recalibrated": 4,
        "samples": 10,
    }
    paths = sorted(path for path in pictures.rglob("*") if path.suffix in (".png", ".bmp"))
    arrays = [np.asarray(Image.open(path).resize((28, 28), Image.Resampling.BILINEAR), np.float32) for path in paths]
    x = (np.stack(arrays)[:, None] / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    expected, _ = infold.recalibrate(lenet, [x])
    infold_means = [node.inputs[3].const_value.numpy() for node in expected.graph if node.op_type == "BatchNormalization"]
    for found, mean in zip(batchnorm_means(out), infold_means, strict=True):
        np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-4)
    assert all(not np.allclose(a, b, atol=1e-2) for a, b in zip(batchnorm_means(out), batchnorm_means(lenet)))


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_arrays(cli: Callable, lenet: Path, tmp_path: Path, suffix: str) -> None:
    x = np.random.default_rng(0).standard_normal((9, 1, 28, 28), np.float32)
    path = tmp_path / f"data.{suffix}"
    np.savez(path, image=x) if suffix == "npz" else np.save(path, x)
    result = cli("recalibrate", lenet, "--npz", path, "-o", tmp_path / "new.onnx", "--batch", "4")
    assert result.code == 0 and "4 of 4 BatchNorms recalibrated on 9 samples" in result.out
    assert cli("verify", tmp_path / "new.onnx").code == 0
    assert cli("doctor", tmp_path / "new.onnx").code == 0


def test_wrong_usage(cli: Callable, lenet: Path, pictures: Path, tmp_path: Path) -> None:
    out, before = tmp_path / "new.onnx", lenet.read_bytes()
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "x.png").write_bytes(b"no picture")
    for name, fields in (("gray", 'color = "gray"'), ("32", 'color = "gray"\nresize = [32, 32]'), ("std", "std = 0")):
        (tmp_path / f"{name}.toml").write_text(fields)
    gray, large, wrong = (("--preprocess", tmp_path / f"{name}.toml") for name in ("gray", "32", "std"))
    np.savez(tmp_path / "other.npz", other=np.zeros((2, 1, 28, 28), np.float32))
    for arguments, words in [
        ((), "either --images DIR or --npz FILE"),
        (("--images", pictures, "--npz", tmp_path / "other.npz"), "either"),
        (("--images", pictures), "must be declared"),
        (("--npz", tmp_path / "other.npz", *gray), "go together"),
        (("--images", tmp_path / "none", *gray), "no such file"),
        (("--images", tmp_path / "empty", *gray), "no picture"),
        (("--images", broken, *gray), "x.png: not a readable picture"),
        (("--images", pictures, *gray), "make no batch"),
        (("--images", pictures, *large), "dimension 2 must be 28"),
        (("--images", pictures, *wrong), "std.toml: preprocessing, field 'std'"),
        (("--npz", tmp_path / "other.npz"), "no input 'other'"),
        (("--npz", tmp_path / "none.npz"), "none.npz"),
    ]:
        result = cli("recalibrate", lenet, *arguments, "-o", out)
        assert result.code == 2 and words in result.err, (arguments, result)
    result = cli("recalibrate", lenet, "--images", pictures, *gray, "-o", lenet)
    assert result.code == 2 and "is the model itself" in result.err
    assert not out.exists() and lenet.read_bytes() == before
