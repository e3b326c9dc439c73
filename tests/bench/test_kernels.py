from __future__ import annotations

import json
import runpy
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from infold import _native

SCRIPT = Path(__file__).parents[2] / "bench" / "kernels.py"


def test_every_layer_beside_its_roof(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    isas = [_native.isa_names()[0], "scalar"]
    found, picture = tmp_path / "found.json", tmp_path / "roofline.svg"
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setenv("INFOLD_ISA", isas[0])
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(files("infold.demo") / "lenet.onnx"), "--isa", *isas, "--rounds", "1",
                                      "--least", "0", "--json", str(found), "--plot", str(picture)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    results = json.loads(found.read_text())
    assert list(results) == isas
    for (rows,) in (models.values() for models in results.values()):
        kinds = {row["kind"] for row in rows}
        assert "AveragePool" in kinds and any("x" in kind for kind in kinds)
        assert all(row["least_ms"] > 0 and row["ms"] > 0 and row["gb"] > 0 for row in rows)
        assert all(row["gflop"] > 0 for row in rows if "x" in row["kind"])
    printed = capsys.readouterr().out
    assert "of roof" in printed and "farthest from its roof" in printed and "all models, by kind of layer" in printed
    drawn = picture.read_text()
    assert "operations per byte" in drawn and all(kind in drawn for kind in kinds if "x" in kind)
