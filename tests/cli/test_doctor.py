from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest


@pytest.fixture
def ill(lenet: Path, tmp_path: Path) -> Path:
    """LeNet with its first BatchNorm in training mode and a NaN in the variance of the second."""
    model = onnx.load(lenet)
    first, second = [node for node in model.graph.node if node.op_type == "BatchNormalization"][:2]
    first.attribute.append(onnx.helper.make_attribute("training_mode", 1))
    variance = next(tensor for tensor in model.graph.initializer if tensor.name == second.input[4])
    array = onnx.numpy_helper.to_array(variance).copy()
    array[3] = np.nan
    variance.CopyFrom(onnx.numpy_helper.from_array(array, variance.name))
    onnx.save(model, tmp_path / "ill.onnx")
    return tmp_path / "ill.onnx"


def test_a_healthy_model(cli: Callable, lenet: Path) -> None:
    result = cli("doctor", lenet, "--layers")
    assert result.code == 0 and "4 BatchNorms examined; findings: 0 error, 0 warning, 2 info" in result.out
    assert all(name in result.out for name in ("bn1", "bn2", "bn3", "bn4"))


def test_an_ill_model(cli: Callable, ill: Path) -> None:
    result = cli("doctor", ill)
    assert result.code == 1 and "training-mode" in result.out and "not-finite" in result.out and "model.eval()" in result.out
    result = cli("doctor", ill, "--json")
    assert result.code == 1
    document = result.json
    assert [(f["severity"], f["node"], f["kind"]) for f in document["findings"][:2]] == [
        ("error", "bn1", "training-mode"),
        ("error", "bn2", "not-finite"),
    ]
    assert document["layers"][1]["mean_of_var"] is None and document["layers"][0]["channels"] == 6


def test_the_picture(cli: Callable, ill: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    assert cli("doctor", ill, "--plot", tmp_path / "statistics.png").code == 1
    with Image.open(tmp_path / "statistics.png") as picture:
        assert picture.width > 800 and len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_what_is_no_model(cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    assert cli("doctor", tmp_path / "junk.onnx").code == 2
    assert cli("doctor", tmp_path / "none.onnx").code == 2


def test_training_mode_is_refused_unless_told_what_to_do(cli: Callable, ill: Path, lenet: Path, tmp_path: Path) -> None:
    for command in ("run", "verify", "bench", "profile"):
        result = cli(command, ill, "--shape", "image=4x1x28x28")
        assert result.code == 2 and "'bn1' is in training mode" in result.err and "'running'" in result.err
    outputs = {}
    for mode in ("running", "batch"):
        for name, path in (("ill", ill), ("well", lenet)):
            assert cli("run", path, "--shape", "image=4x1x28x28", "--training-mode", mode, "-o", tmp_path / "y.npz").code == 0
            outputs[name, mode] = np.load(tmp_path / "y.npz")["logits"]
    assert np.array_equal(outputs["well", "running"], outputs["well", "batch"])
    assert cli("fold", ill, "--json").json["remaining"] == 2
    assert cli("fold", ill, "--json", "--training-mode", "running").json["remaining"] == 1
    assert cli("fold", ill, "--training-mode", "error").code == 2
    assert cli("run", ill, "--training-mode", "never").code == 2


def test_verify_and_bench_with_running_statistics(cli: Callable, lenet: Path, tmp_path: Path) -> None:
    model = onnx.load(lenet)
    next(node for node in model.graph.node if node.op_type == "BatchNormalization").attribute.append(
        onnx.helper.make_attribute("training_mode", 1)
    )
    path = tmp_path / "training.onnx"
    onnx.save(model, path)
    common = ("--shape", "image=4x1x28x28", "--training-mode")
    assert cli("verify", path, *common, "running").code == 0
    assert cli("verify", path, *common, "batch").code == 0
    report = cli("bench", path, *common, "running", "--rounds", "1", "--seconds", "0", "-e", "onnxruntime", "--json").json
    assert report["engines"]["onnxruntime"]["error"] < 1e-5 and report["engines"]["infold"]["error"] < 1e-5
