from __future__ import annotations

import runpy
import sys
from importlib.resources import files
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "threads.py"


def test_one_thread_against_two(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(files("infold.demo") / "lenet.onnx"), "--rounds", "1", "--steps", "2"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == [
        "multiply-adds", "copies", "empty step on 1 thread(s)", "empty step on 2 thread(s)"]
    assert lines[5].startswith("lenet: ") and " times as fast, side by side " in lines[5]
    assert sum(" ms lost: " in line for line in lines) == 2
