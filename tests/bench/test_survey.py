from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def test_a_network_is_checked_timed_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(BENCH)
    import survey

    name, kind = "written_out/dcgan", "ts"
    path = tmp_path / "written_out-dcgan.ts.onnx"
    facts = survey.check(name, kind, path)
    assert facts["fallbacks"] == {} and facts["batchnorms"] == 4 and facts["kept"] == [] and not facts["trivial"]
    assert 0 < facts["error"] < 1e-5 and 0 < facts["onnxruntime_error"] < 1e-5
    times = survey.measure(name, kind, path)
    for file, row in (("checks.jsonl", facts), ("times.jsonl", times)):
        (tmp_path / file).write_text(json.dumps({"name": name, "kind": kind, **row}) + "\n")
    head, _, line, *_, total = survey.table(tmp_path).splitlines()
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    assert len(cells) == head.count("|") - 1 and cells[:4] == ["written out", "1", "–", "–"] and cells[5] == "4, 0, 0"
    ratio = times["onnxruntime"] / times["infold"]
    assert cells[6] == f"{ratio:.2f}, {ratio:.2f} (dcgan)" and f"worst {ratio:.2f}" in total


def test_what_is_listed_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(BENCH)
    import survey

    row = {"name": "written_out/dcgan", "kind": "ts", "apart": 0.0}
    (tmp_path / "checks.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "times.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(sys, "argv", ["survey.py", "time", str(tmp_path)])
    survey.main()
    assert len(survey.read(tmp_path / "times.jsonl")) == 1
