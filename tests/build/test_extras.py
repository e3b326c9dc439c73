"""What is not in the core install: the error says which extra has it, and that extra exists."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import infold
from infold.cli import main
from infold.errors import MissingDependencyError
from infold.importers import pytorch

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_every_extra_that_is_named_exists():
    texts = [*ROOT.glob("engine/**/*.py"), *ROOT.glob("importers/*.py"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.py"),
             ROOT / "README.md"]
    named = {name for path in texts for found in re.findall(r"infold\[([\w,]+)\]", path.read_text()) for name in found.split(",")}
    assert {"torch", "images", "plot", "bench"} <= named <= EXTRAS.keys()


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_torch(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert any(requirement.startswith(package) for requirement in EXTRAS["torch"])
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "net.pt2").write_bytes(b"PK\x03\x04")
    with pytest.raises(MissingDependencyError, match=rf"{package}: pip install 'infold\[torch\]'"):
        pytorch.load(tmp_path / "net.pt2")


def test_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert [requirement for requirement in EXTRAS["images"] if requirement.startswith("pillow")]
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'infold\[images\]'"):
        infold.Preprocess()([tmp_path / "a.png"])


@pytest.mark.parametrize(("extra", "package", "module"), [
    ("batch", "pyarrow", "infold.batch.arrow"), ("ray", "ray", "infold.integrations.ray")])
def test_batches(extra: str, package: str, module: str, monkeypatch: pytest.MonkeyPatch):
    if extra == "ray":
        pytest.importorskip("pyarrow")  # its engine looks for it first
    assert [requirement for requirement in EXTRAS[extra] if requirement.startswith(package)]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'infold\[{extra}\]'"):
        importlib.import_module(module)


def test_the_page(monkeypatch: pytest.MonkeyPatch):
    assert [requirement for requirement in EXTRAS["report"] if requirement.startswith("jinja2")]
    monkeypatch.setitem(sys.modules, "jinja2", None)
    from infold.report.page import render

    with pytest.raises(MissingDependencyError, match=r"pip install 'infold\[report\]'"):
        render({})


def test_the_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert [requirement for requirement in EXTRAS["serve"] if requirement.startswith("kserve")]
    monkeypatch.setitem(sys.modules, "kserve", None)
    arguments = list(sys.argv)
    with pytest.raises(SystemExit) as exit:
        main(["serve", str(ROOT / "engine" / "demo" / "lenet.onnx")])
    assert exit.value.code == 2 and "kserve: pip install 'infold[serve]'" in capsys.readouterr().err and sys.argv == arguments


@pytest.mark.parametrize("what", ["bench", "statistics"])
def test_plots(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from infold.report import bench, doctor_plot, plot

    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"] + ["matplotlib", "matplotlib.figure"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'infold\[plot\]'"):
        if what == "statistics":
            doctor_plot.plot_statistics(infold.doctor(ROOT / "engine" / "demo" / "lenet.onnx"), tmp_path / "a.png")
        else:
            times = bench.Timing([np.ones(2)], "float32", "0", None)
            plot.plot_bench(bench.BenchReport("m", 1, 1, {}, {"infold": times}, "cpu", "scalar"), tmp_path / "a.png")
