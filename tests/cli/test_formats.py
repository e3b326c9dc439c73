"""Commands on Caffe and Torch7 models: the options that their importers ask for, on every command that reads a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infold.importers.caffe_schema import MESSAGES

HARNESSES = Path(__file__).parents[1] / "importers"
NET = """
input: "data"
layer { name: "conv" type: "Convolution" bottom: "data" top: "y" convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "bn" type: "BatchNorm" bottom: "y" top: "y" }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
"""
COMMANDS = ["run", "fold", "verify", "profile", "doctor", "convert", "info", "bench", "recalibrate"]


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A prototxt that gives no size, and its weights elsewhere."""
    monkeypatch.syspath_prepend(HARNESSES)
    from caffe_harness import blob_message

    rng, weights = np.random.default_rng(0), MESSAGES["NetParameter"]()
    for name, blobs in (("conv", [(4, 3, 3, 3), (4,)]), ("bn", [(4,), (4,), (1,)])):
        layer = weights.layer.add(name=name)
        for shape in blobs:
            layer.blobs.append(blob_message(rng.uniform(0.5, 1.5, shape)))
    (tmp_path / "elsewhere").mkdir()
    prototxt, caffemodel = tmp_path / "net.prototxt", tmp_path / "elsewhere" / "other.caffemodel"
    prototxt.write_text(NET)
    caffemodel.write_bytes(weights.SerializeToString())
    return prototxt, caffemodel


def more(command: str, folder: Path) -> list:
    """What a command needs beside a model."""
    if command == "convert":
        return ["-o", folder / "out.onnx"]
    if command == "recalibrate":
        np.save(folder / "data.npy", np.random.default_rng(1).standard_normal((4, 3, 8, 9), np.float32))
        return ["-o", folder / "out.onnx", "--npz", folder / "data.npy"]
    return ["--engine", "onnxruntime", "--rounds", "1", "--seconds", "0", "--no-accuracy"] if command == "bench" else []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_caffe_net_without_sizes_and_its_weights_elsewhere(cli: Callable, net: tuple, command: str, tmp_path: Path):
    prototxt, caffemodel = net
    shape = "2x3x8x9" if command == "recalibrate" else "1x3x8x9"
    given = cli(command, prototxt, "--weights", caffemodel, "--input-shape", f"data:{shape}", *more(command, tmp_path), "--json")
    assert given.code == 0, given.err
    if command == "bench":
        assert given.json["engines"].keys() == {"infold", "onnxruntime"} and given.json["model"] == str(prototxt)
    without = cli(command, prototxt, "--shape", "data=1x3x8x9", *more(command, tmp_path))
    assert without.code == 2 and "weights" in without.err
    open_size = cli(command, prototxt, "--weights", caffemodel, *more(command, tmp_path))
    assert open_size.code == 2 and "no shape for its input 'data'" in open_size.err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_torch7_network_of_a_given_size(cli: Callable, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(HARNESSES)
    from torch7_networks import conv, norm, sequential
    from torch7_writer import dump

    path = tmp_path / "net.t7"
    path.write_bytes(dump(sequential(conv(3, 4), norm(4))))
    shape = "4x3x8x9" if command == "recalibrate" else "1x3x8x9"
    result = cli(command, path, "--shape", f"input={shape}", *more(command, tmp_path), "--json")
    assert result.code == 0, result.err
    wrong = cli(command, path, "--shape", "x=1x3x8x9", *more(command, tmp_path))
    assert wrong.code == 2 and "inputs are called input" in wrong.err


@pytest.mark.parametrize("command", ["fold", "doctor", "convert", "recalibrate"])
def test_a_shape_that_nothing_asks_for_is_refused(cli: Callable, lenet: Path, command: str, tmp_path: Path):
    result = cli(command, lenet, "--shape", "image=1x1x28x28", *more(command, tmp_path))
    assert result.code == 2 and "--shape" in result.err


def test_weights_of_other_formats_are_refused(cli: Callable, lenet: Path):
    result = cli("info", lenet, "--weights", lenet)
    assert result.code == 2 and "--weights goes with a .prototxt" in result.err
