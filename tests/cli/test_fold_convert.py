from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def logits(path: Path) -> np.ndarray:
    images = np.random.default_rng(0).standard_normal((3, 1, 28, 28), np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def test_fold_writes_a_model_without_batchnorms_that_computes_the_same(
    cli: Callable, lenet: Path, tmp_path: Path
) -> None:
    before = lenet.read_bytes()
    result = cli("fold", lenet, "-o", tmp_path / "folded.onnx", "--json")
    assert result.code == 0 and lenet.read_bytes() == before
    document = result.json
    assert {key: document[key] for key in ("batchnorms", "folded", "fused", "remaining")} == {
        "batchnorms": 4,
        "folded": 4,
        "fused": 0,
        "remaining": 0,
    }
    assert len(document["items"]) == 4
    assert all(item["verdict"] == "folded" and item.keys() >= {"name", "into", "reason"} for item in document["items"])
    assert "BatchNormalization" not in operators(tmp_path / "folded.onnx")
    np.testing.assert_allclose(logits(tmp_path / "folded.onnx"), logits(lenet), rtol=1e-4, atol=1e-5)


def test_fold_shows_every_batchnorm_and_where_it_went(cli: Callable, lenet: Path) -> None:
    names = [node.name for node in onnx.load(lenet).graph.node if node.op_type == "BatchNormalization"]
    result = cli("fold", lenet, "--explain")
    assert result.code == 0 and all(name in result.out for name in names)
    assert "4 BatchNorms: 4 folded, 0 fused, 0 remaining" in result.out and "nothing written" in result.out
    assert result.out.count("backward: scales the output channels of the") == 4
    items = cli("fold", lenet, "--explain", "--json").json["items"]
    assert all(item["explanation"].startswith("backward") for item in items)


@pytest.mark.parametrize("name", ["net.pt2", "net.t7", "net.caffemodel", "net.infold"])
def test_onnx_is_not_written_under_the_name_of_another_format(cli: Callable, lenet: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"somebody's")
    result = cli("convert", lenet, "-o", tmp_path / name)
    assert result.code == 2 and "name it .onnx" in result.err and (tmp_path / name).read_bytes() == b"somebody's"


@pytest.mark.parametrize("command", ["fold", "convert"])
def test_the_input_is_never_overwritten(cli: Callable, lenet: Path, tmp_path: Path, command: str) -> None:
    before = lenet.read_bytes()
    (tmp_path / "link.onnx").symlink_to(lenet)
    os.link(lenet, tmp_path / "hard.onnx")
    for name in ("lenet.onnx", "link.onnx", "hard.onnx"):
        result = cli(command, lenet, "-o", tmp_path / name)
        assert result.code == 2 and "is the model itself" in result.err and lenet.read_bytes() == before


@pytest.mark.parametrize("command", ["fold", "convert"])
def test_a_failed_write_leaves_what_was_there(
    cli: Callable, lenet: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.onnx").write_bytes(b"precious")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    result = cli(command, lenet, "-o", tmp_path / "old.onnx")
    assert result.code == 2 and "No space left" in result.err
    assert (tmp_path / "old.onnx").read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("target", "word"), [("absent/out.onnx", "no such folder"), (".", "is a folder")])
def test_where_nothing_can_be_written(cli: Callable, lenet: Path, tmp_path: Path, target: str, word: str) -> None:
    result = cli("fold", lenet, "-o", tmp_path / target)
    assert result.code == 2 and word in result.err


def test_convert_keeps_what_the_model_computes(cli: Callable, lenet: Path, tmp_path: Path) -> None:
    result = cli("convert", lenet, "-o", tmp_path / "copy.onnx", "--json")
    assert result.code == 0 and result.json["written"] == str(tmp_path / "copy.onnx")
    assert operators(tmp_path / "copy.onnx").count("BatchNormalization") == 4
    np.testing.assert_array_equal(logits(tmp_path / "copy.onnx"), logits(lenet))


def test_weights_beyond_protobuf_s_limit_lie_beside_the_model(
    cli: Callable, lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infold.cli.files.PROTOBUF_LIMIT", 1000)
    assert cli("convert", lenet, "-o", tmp_path / "large.onnx").code == 0
    assert (tmp_path / "large.onnx.data").stat().st_size > 100_000 > (tmp_path / "large.onnx").stat().st_size
    np.testing.assert_array_equal(logits(tmp_path / "large.onnx"), logits(lenet))


def test_preprocessing_goes_into_the_model(cli: Callable, lenet: Path, tmp_path: Path) -> None:
    """A picture through model and declaration gives what it gives through the folded model and what is left to do."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(5).integers(0, 256, (30, 33, 3), np.uint8)
    image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "digits.toml").write_text('color = "gray"\nresize = [28, 28]\nmean = 0.1307\nstd = 0.3081\n')
    result = cli("fold", lenet, "--preprocess", tmp_path / "digits.toml", "-o", tmp_path / "pixels.onnx", "--json")
    assert result.code == 0 and result.json["preprocess"] == str(tmp_path / "pixels.preprocess.json")
    assert next((item["name"], item["verdict"]) for item in result.json["items"]) == ("preprocess", "folded")
    outputs = []
    for model, declared in ((lenet, "digits.toml"), (tmp_path / "pixels.onnx", "pixels.preprocess.json")):
        run = ("run", model, "--input", tmp_path / "a.png", "-o", tmp_path / "out.npz")
        assert cli(*run, "--preprocess", tmp_path / declared).code == 0
        outputs.append(np.load(tmp_path / "out.npz")["logits"])
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
    assert outputs[0].shape == (1, 10) and outputs[0].std() > 0.1
    result = cli(*run)
    assert result.code == 2 and "must be declared" in result.err
    (tmp_path / "digits.toml").rename(tmp_path / "again.preprocess.json")
    result = cli("fold", lenet, "--preprocess", tmp_path / "again.preprocess.json", "-o", tmp_path / "again.onnx")
    assert result.code == 2 and "no legal JSON" in result.err
    (tmp_path / "again.preprocess.json").write_text('{"color": "gray"}')
    result = cli("fold", lenet, "--preprocess", tmp_path / "again.preprocess.json", "-o", tmp_path / "again.onnx")
    assert result.code == 2 and "the declared preprocessing itself" in result.err and not (tmp_path / "again.onnx").exists()
