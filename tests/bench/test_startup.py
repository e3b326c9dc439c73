from __future__ import annotations

import runpy
import sys
from importlib.resources import files
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "startup.py"


def test_fresh_processes_are_compared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(files("infold.demo") / "lenet.onnx")
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), model, "--rounds", "1", "--warm", "1"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    head, _, row = capsys.readouterr().out.splitlines()[-3:]
    cells = [tuple(map(float, cell.split("/"))) for cell in row.strip("| ").split("|")[1:]]
    assert [name.strip() for name in head.strip("| ").split("|")] == ["model", "import", "cold", "first_run", "peak_mb", "warm"]
    peaks = cells[3]
    assert min(peaks) > 20 and max(peaks) < 500 and min(min(cell) for cell in cells[:2]) > 0
