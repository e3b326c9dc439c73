"""`polygraphy run --infold`, by the entry point that the package declares."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

LENET = Path(str(files("infold.demo") / "lenet.onnx"))


def polygraphy(*arguments: object) -> subprocess.CompletedProcess:
    program = "from polygraphy.tools import main; import sys; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory) -> Path:
    """The network with another bias at its end."""
    model = onnx.load(LENET)
    name = model.graph.node[-1].input[2]
    [bias] = [tensor for tensor in model.graph.initializer if tensor.name == name]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), name))
    path = tmp_path_factory.mktemp("polygraphy") / "wrong.onnx"
    onnx.save(model, path)
    return path


def test_layers_agree_with_onnxruntime():
    """Every tensor of the model; polygraphy makes outputs of them without types."""
    assert "infold" in entry_points(group="polygraphy.run.plugins").names
    options = ["--infold-threads", 1, "--infold-precision", "highest", "--atol", 1e-4, "--rtol", 1e-4]
    options += ["--onnx-outputs", "mark", "all"]
    done = polygraphy("run", LENET, "--infold", "--onnxrt", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "infold-runner" in done.stdout and "Pass Rate: 100.00%" in done.stdout and "conv2d" in done.stdout


def test_difference_is_found(tmp_path, wrong):
    outputs = tmp_path / "outputs.json"
    assert polygraphy("run", LENET, "--infold", "--save-outputs", outputs).returncode == 0
    done = polygraphy("run", wrong, "--infold", "--load-outputs", outputs)
    assert done.returncode == 1 and "FAILED" in done.stdout + done.stderr
