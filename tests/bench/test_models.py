from __future__ import annotations

import json
import runpy
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "models.py"


def test_each_engine_counts_with_its_better_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("raw", "opt"):
        (tmp_path / "zoo" / kind).mkdir(parents=True)
        shutil.copy(files("infold.demo") / "lenet.onnx", tmp_path / "zoo" / kind)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    wanted = [part for name in ("onnxruntime", "openvino", "infold@high") for part in ("--engine", name)]
    options = ["--rounds", "2", "--seconds", "0.01", "--batch", "3", *wanted]
    folders = ["--zoo", str(tmp_path / "zoo"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options, *folders])
    runpy.run_path(str(SCRIPT), run_name="__main__")

    (result,) = json.loads((tmp_path / "out" / "models.json").read_text())["results"]
    assert {"infold-raw", "infold-opt", "onnxruntime-raw", "onnxruntime-opt"} <= result["entries"].keys()
    for engine, facts in result["engines"].items():
        medians = [result["entries"][f"{engine}-{kind}"]["median_ms"] for kind in ("raw", "opt")]
        assert facts["median_ms"] == min(medians) and facts["error"] < 1e-5
    peers = [facts["median_ms"] for engine, facts in result["engines"].items() if not engine.startswith("infold")]
    best = result["best_peer"]
    assert best["ratio"] == pytest.approx(min(peers) / result["engines"]["infold"]["median_ms"])
    high = result["levels"]["infold@high"]
    assert high["ratio"] == pytest.approx(min(peers) / result["engines"]["infold@high"]["median_ms"])
    assert {path.name for path in (tmp_path / "out").glob("*.svg")} == {"latency-1.svg", "error-1.svg"}
    table = (tmp_path / "out" / "models.md").read_text()
    assert result["input"] == "3x1x28x28" and "Input 3x1x28x28, 1 thread(s)" in table
    assert "| lenet |" in table and f"Geometric mean {best['ratio']:.2f}" in table


def test_a_model_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--zoo", str(tmp_path), "--output", str(tmp_path), "resnet0"])
    with pytest.raises(SystemExit, match="'resnet0'"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert not list(tmp_path.iterdir())
