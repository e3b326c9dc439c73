"""What README and docs show works as shown: every `infold` command is run, every Python block executed, in a folder with the files
they name. Commands that set up or test the checkout are looked up instead: the target, the extra, the script with its options."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import infold
from infold.cli import main

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUICK = {
    "bench": ["--rounds", "1", "--seconds", "0.01"],
    "report": ["--rounds", "1", "--seconds", "0.01"],
    "tune": ["--rounds", "1"],
    "loadgen": ["--seconds", "0.1"],
    "demo": ["--help"],
    "serve": ["--help"],
}  # the demo and the server have tests of their own
ELSEWHERE = {"serving.md"}  # tests/serving runs the Python of it
CLUSTER = os.environ.get("INFOLD_DOCS") == "ray"  # `make batch` runs the blocks that start a cluster
SAYS_NO = {"doctor": 1, "loadgen": 1}  # exit codes that are no failure: it may find an error, a run may be too short


def network(*shape: int | str) -> onnx.ModelProto:
    """Convolution, BatchNorm, ReLU, a separable convolution, pooling and a classifier over images of 3 channels."""
    rng = np.random.default_rng(5)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "bias", "mean", "var"], ["b"], "bn1"),
        helper.make_node("Relu", ["b"], ["c"], "relu1"),
        helper.make_node("Conv", ["c", "dw"], ["s"], "conv2", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["s", "pw"], ["t"], "conv3"),
        helper.make_node("GlobalAveragePool", ["t"], ["d"], "pool1"),
        helper.make_node("Flatten", ["d"], ["e"], "flatten1"),
        helper.make_node("Gemm", ["e", "fc"], ["y"], "fc1"),
    ]
    weights = [
        weight("w", 8, 3, 3, 3),
        weight("dw", 8, 1, 3, 3),
        weight("pw", 8, 8, 1, 1),
        *(weight(name, 8) for name in ("scale", "bias", "mean")),
        weight("fc", 8, 5),
    ]
    weights.append(numpy_helper.from_array(rng.uniform(0.5, 2, 8).astype(np.float32), "var"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "net", [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], 5])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def declared(page: Path) -> str:
    """The first indented block of a page."""
    return textwrap.dedent(re.search(r"(?m)(?:^    .+\n)+", page.read_text())[0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The files that the pages name, in the working directory."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "importers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    import torch7_networks
    from caffe_harness import Net
    from PIL import Image
    from torch7_writer import dump, module

    x = np.random.default_rng(6).uniform(size=(4, 3, 32, 32)).astype(np.float32)
    onnx.save(network(1, 3, 32, 32), "model.onnx")
    onnx.save(network("N", 3, "H", "W"), "det.onnx")
    np.save("x.npy", x[:1])
    Path("app.py").write_text("import onnxruntime\nassert onnxruntime.InferenceSession.__module__.startswith('infold')\n")
    np.savez("data.npz", x=x)
    Path("pictures").mkdir()
    for i, image in enumerate(x):
        Image.fromarray((image * 255).astype(np.uint8).transpose(1, 2, 0)).save(f"pictures/{i}.png")
    Path("picture.jpg").write_bytes(Path("pictures/0.png").read_bytes())
    Path("imagenet.toml").write_text(declared(ROOT / "docs" / "preprocessing.md"))
    net = Net(data=(1, 3, 32, 32)).layer(
        "Convolution", ["data"], ["c"], "convolution_param { num_output: 4 kernel_size: 3 }", blobs=[(4, 3, 3, 3), (4,)]
    )
    net.layer("BatchNorm", ["c"], ["n"], blobs=[(4,), np.full(4, 2.0), np.full(1, 1.0)]).layer("ReLU", ["n"], ["y"])
    for text, weights in (("net.prototxt", "net.caffemodel"), ("deploy.prototxt", "net_iter_90000.caffemodel")):
        Path(text).write_text(net.text)
        Path(weights).write_bytes(net.caffemodel)
    Path("resnet-50.t7").write_bytes(dump(torch7_networks.resnet()))
    branches = [module("Linear", weight=np.ones((4, 4), np.float32), bias=None), torch7_networks.conv(3, 4)]
    Path("two_inputs.t7").write_bytes(dump(module("ParallelTable", branches)))
    return tmp_path


def run(command: str) -> None:
    words = shlex.split(command, comments=True)
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    program = Path(words[0]).name if words else ""
    if words[1:2] == ["exec"]:  # it becomes that program
        subprocess.run([sys.executable, "-c", "from infold.cli import main; main()", *words[1:]], check=True)
    elif program == "infold":
        with pytest.raises(SystemExit) as exit:
            main([*words[1:], *QUICK.get(words[1], [])])
        assert exit.value.code in (0, SAYS_NO.get(words[1])), command
    elif program == "polygraphy":
        subprocess.run([sys.executable, "-c", "from polygraphy.tools import main; main()", *words[1:]], check=True)
    elif program == "make":
        targets = re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), command
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for asked in re.findall(r"\[([\w,]+)\]", command):
            assert set(asked.split(",")) <= set(extras), command
    elif program == "python" and words[1] != "-m":
        script = (ROOT / words[1]).read_text()
        assert all(word in script for word in words if word.startswith("--")), command
    else:
        assert program in ("", ".", "python"), f"a kind of command that this test does not know: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks(page: Path, folder: Path):
    names = {
        "infold": infold,
        "np": np,
        "onnx_ir": onnx_ir,
        "x": np.load("x.npy"),
        "batches": list(np.load("data.npz")["x"][:, None]),
    }
    for language, text in FENCE.findall(page.read_text()):
        assert language in ("python", "sh", "{toctree}", "{include}", "{eval-rst}"), f"{page.name}: a block in {language!r}"
        if re.search(r"--engine ray|^import ray$", text, re.MULTILINE) and not CLUSTER:
            continue
        if language == "sh":
            for command in text.splitlines():
                run(command)
        elif language == "python" and page.name not in ELSEWHERE:
            exec(compile(text, f"{page.name}: {text.splitlines()[0]}", "exec"), names)


def test_every_command_is_in_a_block():
    for page in PAGES:
        prose = FENCE.sub("", page.read_text())
        assert not re.findall(r"(?m)^    infold .*", prose), page.name
