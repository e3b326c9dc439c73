from __future__ import annotations

import runpy
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "bench" / "accuracy.py"


def test_a_line_for_each_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for kind in ("raw", "opt"):
        (tmp_path / "zoo" / kind).mkdir(parents=True)
        shutil.copy(files("infold.demo") / "lenet.onnx", tmp_path / "zoo" / kind)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--zoo", str(tmp_path / "zoo"), "--kept", str(tmp_path / "kept")])
    lines = []
    for _ in range(2):  # with the float64 runs of the first
        runpy.run_path(str(SCRIPT), run_name="__main__")
        head, _, line = capsys.readouterr().out.splitlines()
        assert head.count("|") == line.count("|") and line.startswith("| lenet |")
        lines.append(line)
    assert lines[0] == lines[1] and len(list((tmp_path / "kept").iterdir())) == 16
    cells = [cell.split()[0] for cell in lines[0].split("|")[2:-1]]
    assert 0 < float(cells[0]) < 1e-6 and 0.1 < float(cells[2]) < 3
    assert 0 < float(cells[6]) <= float(cells[7]) <= float(cells[8]) < 0.3  # without bf16 in the CPU all levels are float32


def test_pictures_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import accuracy

    Image.new("RGB", (9, 5), (255, 0, 0)).save(tmp_path / "red.png")
    made = accuracy.pictures(3, 6, 8)
    assert len(made) == 8 and {picture.shape for picture in made.values()} == {(1, 3, 6, 8)}
    assert all(picture.std() > 0.03 for picture in made.values())
    monkeypatch.syspath_prepend(SCRIPT.parents[1] / "tests")
    from session_harness import Net

    net = Net()
    model = net.model(net("Relu", net.input(1, 3, 6, 8)))
    given = accuracy.inputs(model, [str(tmp_path / "red.png")])["red"]
    assert given.shape == (1, 3, 6, 8) and given[0, 0].min() > 2 and given[0, 1:].max() < -1.5
