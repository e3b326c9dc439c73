"""The reading half of the demo: the same text as onnxruntime, and a clear line where its packages are missing."""
from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

import infold
from infold import demo
from infold.demo import ocr
from infold.errors import MissingDependencyError

TEXTS = ["城北植物园欢迎您", "开放时间：每天（星期一除外）", "请勿采摘花草，谢谢合作。", "FREEENTRY"]


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_demo_reads_the_notice_as_onnxruntime_does(console: Console):
    pytest.importorskip("rapidocr_onnxruntime")
    result = demo.run(console, short=True)
    assert result["ok"], console.file.getvalue()
    assert result == json.loads(json.dumps(result))
    lines = {line["text"]: line["score"] for line in result["ocr"]["lines"]}
    assert set(TEXTS) <= set(lines) and len(lines) == 9 and min(lines.values()) > 0.9
    assert not result["ocr"]["fallbacks"]
    assert all(fold["remaining"] == 0 < fold["batchnorms"] for fold in result["ocr"]["folds"].values())
    assert set(result["ocr"]["ms"]) == {*ocr.STAGES, "whole pipeline"}
    printed = console.file.getvalue()
    assert all(text in printed for text in (*TEXTS, "bn1", "conv1", "float64"))


def test_the_pipeline_runs_on_infold_alone(monkeypatch: pytest.MonkeyPatch):
    """Every model of the pipeline goes through the session that was put in its place."""
    pytest.importorskip("rapidocr_onnxruntime")
    onnxruntime = pytest.importorskip("onnxruntime")
    reader = ocr.Reader(infold.InferenceSession)
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *_: pytest.fail("onnxruntime was asked"))
    lines, ms = reader.read(ocr.PICTURE)
    assert set(TEXTS) <= {line["text"] for line in lines}
    assert all(spent > 0 for spent in ms.values())


@pytest.mark.parametrize("missing", ["rapidocr_onnxruntime", "cv2", "onnxruntime"])
def test_missing_packages_are_told_in_one_line(console: Console, monkeypatch: pytest.MonkeyPatch, missing: str):
    for name in [name for name in sys.modules if name.partition(".")[0] == "rapidocr_onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert list(ocr.run(console)) == ["skipped"]
    [_rule, line] = console.file.getvalue().strip().splitlines()
    assert missing in line and ocr.INSTALL in line


def test_the_line_installs_what_make_installs():
    bare = ocr.INSTALL.rpartition(" ")[2]
    assert bare in (Path(ocr.__file__).parent / "requirements-nodeps.txt").read_text().splitlines()


def test_models_of_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    def files(name: str):
        raise ocr.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(ocr.metadata, "files", files)
    with pytest.raises(MissingDependencyError, match="rapidocr-onnxruntime"):
        ocr.models()
