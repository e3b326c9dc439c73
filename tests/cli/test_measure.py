"""The commands that measure and check: verify, bench, profile, info."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest


def test_verify_says_yes(cli: Callable, lenet: Path) -> None:
    result = cli("verify", lenet, "--shape", "image=2x1x28x28", "--json")
    assert result.code == 0 and result.json["ok"] and result.json["first_divergent"] is None
    (output,) = result.json["outputs"]
    assert output.keys() >= {"name", "max_abs", "max_rel", "error", "onnxruntime_error"} and output["error"] < 1e-5
    text = cli("verify", lenet)
    assert text.code == 0 and "ok" in text.out and "larger" in text.out


def test_verify_compares_inside_the_graph(cli: Callable, lenet: Path) -> None:
    result = cli("verify", lenet, "--layers", "--batch", 2, "--json")
    assert result.code == 0 and {"AveragePool", "Sigmoid"} <= {layer["op_type"] for layer in result.json["layers"]}
    text = cli("verify", lenet, "--layers")
    assert text.code == 0 and "largest errors inside the graph" in text.out


def test_verify_says_no(cli: Callable, lenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import infold

    run = infold.InferenceSession.run
    monkeypatch.setattr(infold.InferenceSession, "run", lambda *arguments: [1.01 * y for y in run(*arguments)])
    result = cli("verify", lenet, "--json")
    assert result.code == 1 and not result.json["ok"] and not result.err


def test_bench_times_and_draws(cli: Callable, lenet: Path, tmp_path: Path) -> None:
    short = ("--rounds", 2, "--seconds", 0.01, "--engine", "onnxruntime")
    result = cli("bench", lenet, "--batch", 2, "--threads", 1, *short, "--plot", tmp_path / "bench.svg", "--json")
    assert result.code == 0 and result.json["ratio"].keys() == {"onnxruntime"} and result.json["batch"] == 2
    assert "<svg" in (tmp_path / "bench.svg").read_text()
    text = cli("bench", lenet, *short)
    assert text.code == 0 and "onnxruntime" in text.out and "peer / infold" in text.out


def test_bench_refuses_what_it_does_not_know(cli: Callable, lenet: Path) -> None:
    result = cli("bench", lenet, "--engine", "onxruntime")
    assert result.code == 2 and "onxruntime" in result.err and len(result.err.splitlines()) == 1


def test_profile_accounts_for_the_whole_run(cli: Callable, lenet: Path) -> None:
    result = cli("profile", lenet, "--runs", 2, "--threads", 1, "--json")
    assert result.code == 0
    steps = result.json["steps"]
    assert all(step.keys() >= {"name", "op", "kernel", "ms", "share"} for step in steps) and "conv" in {
        step["op"] for step in steps
    }
    assert sum(step["share"] for step in steps) == pytest.approx(1)
    text = cli("profile", lenet, "--runs", 1, "--top", 2)
    assert text.code == 0 and "in the fallback" in text.out and "faster steps not shown" in text.out


def test_report_as_a_page_as_text_and_as_json(cli: Callable, lenet: Path, tmp_path: Path) -> None:
    short = ("--rounds", 2, "--seconds", 0.005, "--engine", "infold", "--shape", "image=1x1x28x28")
    result = cli("report", lenet, "-o", tmp_path / "report.html", *short, "--json")
    assert result.code == 0 and result.json["model"] == "lenet.onnx" and len(result.json["fold"]["items"]) == 4
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>") and all(item["name"] in page for item in result.json["fold"]["items"])
    text = cli("report", lenet, *short)
    assert text.code == 0 and not text.err and all(
        title in text.out for title in ("BatchNorms", "Time and roofline", "Latency", "Accuracy", "Doctor", "Memory", "of roof"))
    assert cli("report", lenet, "-o", lenet, *short).code == 2 and lenet.read_bytes()[:1] != b"<"


def test_info_says_what_would_be_faster(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFOLD_ISA", "scalar")
    facts = cli("info", "--json").json
    held_back = f"INFOLD_ISA=scalar keeps infold from the {facts['isas'][0]} kernels"
    assert len(facts["isas"]) == 1 or held_back in facts["faster"][0]
    assert "INFOLD_ISA" in cli("info").out or len(facts["isas"]) == 1


def test_info_of_the_machine(cli: Callable) -> None:
    result = cli("info", "--json")
    assert result.code == 0
    facts = result.json
    assert facts["isa"] in facts["isas"] and facts["isas"][-1] == "scalar" and facts["threads"] >= 1
    assert (
        facts["versions"]["onnx"] == onnx.__version__
        and facts["versions"]["infold"]
        and facts["cpu"] in cli("info").out
    )


def test_info_obeys_the_environment(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFOLD_ISA", "scalar")
    assert cli("info", "--json").json["isa"] == "scalar"


def test_info_of_a_model(cli: Callable, lenet: Path) -> None:
    facts = cli("info", lenet, "--json").json
    weights = onnx.load(files("infold.demo") / "lenet.onnx").graph.initializer
    assert facts["batchnorms"] == 4 and facts["operators"]["BatchNormalization"] == 4
    assert facts["parameters"] == sum(onnx.numpy_helper.to_array(tensor).size for tensor in weights)
    assert facts["inputs"] == [{"name": "image", "shape": ["batch", 1, 28, 28], "type": "tensor(float)"}]
    assert np.all([name in cli("info", lenet).out for name in ("image", "logits", "BatchNormalization")])


def test_what_runs_in_the_fallback_depends_on_open_dimensions(cli: Callable, tmp_path: Path) -> None:
    shape = ["batch", 3, "height"]
    infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("RandomNormalLike", ["x"], ["y"])], "g", infos[:1], infos[1:])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    assert cli("info", tmp_path / "m.onnx", "--json").json["fallback"] is None
    assert "give --shape" in cli("info", tmp_path / "m.onnx").out
    assert cli("info", tmp_path / "m.onnx", "--shape", "x=1x3x4", "--json").json["fallback"] == ["RandomNormalLike"]
    assert cli("info", tmp_path / "m.onnx", "--shape", "x=1x4x4").code == 2


def test_tune_keeps_a_choice_for_sessions(cli: Callable, lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tuned = cli("tune", lenet, "--threads", 1, "--rounds", 1, "--precision", "high", "--json")
    assert tuned.code == 0 and {"nodes", "planned_ms", "tuned_ms", "ratio", "kept"} <= tuned.json.keys()
    assert all({"name", "planned", "best", "ms"} <= node.keys() and node["best"] in node["ms"] for node in tuned.json["nodes"])
    assert json.loads(Path(tuned.json["path"]).read_text())["key"]["shapes"] == {"image": [1, 1, 28, 28]}
    text = cli("tune", lenet, "--threads", 1, "--rounds", 1, "--precision", "high")
    assert text.code == 0 and "nodes are faster another way" in text.out and "95 % interval" in text.out
