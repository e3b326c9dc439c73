"""`infold tune`: the fastest algorithm is found by measuring, kept, used by later sessions, and never trusted blindly."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from session_harness import Net, session

import infold
from infold import tuned
from infold.report.tune import MARGIN, tune


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "infold" / "tune"


@pytest.fixture
def misled(monkeypatch):
    """A planner that takes emulated sums of bf16 numbers for twice as fast as float32."""
    monkeypatch.setenv("INFOLD_ISA", "scalar")
    monkeypatch.setattr("infold.ops.conv_direct.cycles", lambda ctx, name, size: {"bf16x6": 1.0, "direct": 2.0}.get(name, np.inf))


def convolutions(dims: tuple | None = None) -> tuple[Net, ir.Model]:
    net = Net(2)
    x = net.input(1, 16, 14, 14, dims=dims)
    for _ in range(2):
        x = net("Relu", net("Conv", x, net.weight(16, 16, 3, 3), net.normal(16), pads=[1, 1, 1, 1]))
    return net, net.model(x)


def kernels(model, net, **options) -> set[str]:
    return {step.kernel for step in session(model, **options).profile(net.feeds, 1)} & {"conv", "conv_bf16"}


def test_sessions_use_what_was_measured(misled, cache):
    net, model = convolutions()
    assert kernels(model, net) == {"conv_bf16"} and not cache.exists()
    report = tune(model, net.feeds, infold.SessionOptions(intra_op_num_threads=1), rounds=2)
    assert [(n.planned, n.best) for n in report.nodes] == [("bf16x6", "direct")] * 2
    assert all(n.ms["direct"] < n.ms["bf16x6"] for n in report.nodes)
    assert report.kept and report.tuned_ms < report.planned_ms and report.ratio > 1 and [Path(report.path)] == list(cache.iterdir())
    assert kernels(model, net) == {"conv"}
    found, direct = (session(model, **options).run(None, net.feeds)[0] for options in ({}, {"algorithms": {"*": "direct"}}))
    np.testing.assert_array_equal(found, direct)
    assert kernels(model, net, tuned=False) == {"conv_bf16"} == kernels(model, net, algorithms={"*": "bf16x6"})
    assert kernels(model, net, precision="high") == {"conv_bf16"}  # for what was measured alone
    assert {step.kernel for step in session(model, threads=2).profile(net.feeds, 1)} >= {"conv_bf16"}
    Path(report.path).unlink()
    assert kernels(model, net) == {"conv_bf16"}


def test_each_shape_has_a_choice_of_its_own(misled, cache):
    net, model = convolutions(dims=(1, 16, "H", 14))
    tune(model, net.feeds, infold.SessionOptions(intra_op_num_threads=1), rounds=1)
    subject = session(model)
    feeds = [{name: x[:, :, :rows] for name, x in net.feeds.items()} for rows in (14, 12)]
    used = [{step.kernel for step in subject.profile(each, 1)} for each in feeds]
    assert "conv" in used[0] and "conv_bf16" not in used[0] and "conv_bf16" in used[1]


def test_a_slower_choice_is_not_kept(monkeypatch):
    """The sum of the layers promises more than the whole model gives: the plan stays."""
    net, model = convolutions()
    monkeypatch.setattr("infold.report.tune.measure", lambda prepared, **_: {
        name: [np.array([2.0 if name == "tuned" else 1.0])] * 3 for name in prepared})
    report = tune(model, net.feeds, infold.SessionOptions(intra_op_num_threads=1, precision="high"), rounds=1)
    assert not report.kept and json.loads(Path(report.path).read_text())["algorithms"] == {}


@pytest.mark.parametrize("threads", [1, 2])
def test_a_chain_stands_against_its_nodes_together(threads: int, monkeypatch):
    monkeypatch.setattr("infold.ops.conv_chain._band_rows", lambda *_: 2)  # a chain of many small steps
    monkeypatch.setattr("infold.plan.choice.HOPE", 1e6)
    net = Net(3)
    x = net("Conv", net.input(1, 8, 24, 20), net.weight(40, 8, 1, 1))
    x = net("Conv", x, net.weight(40, 1, 3, 3), group=40, pads=[1, 1, 1, 1])
    model = net.model(net("Conv", x, net.weight(8, 40, 1, 1)))
    report = tune(model, net.feeds, infold.SessionOptions(intra_op_num_threads=threads), rounds=3)
    first = report.nodes[0]
    assert len(first.nodes) == 3 and set(first.nodes) == {node.name for node in report.nodes} and "chain" in first.ms
    assert all(ms > 0 for node in report.nodes for ms in node.ms.values())
    apart = sum(min(ms for way, ms in node.ms.items() if way != "chain") for node in report.nodes)
    ratio, best = first.ms["chain"] / apart, {node.best for node in report.nodes}
    assert len(best) == 1 if "chain" in best else ratio >= MARGIN
    assert "chain" not in best or ratio <= 1 / MARGIN


def test_damaged_and_foreign_files_are_ignored_with_a_warning(misled):
    net, model = convolutions()
    report = tune(model, net.feeds, infold.SessionOptions(intra_op_num_threads=1), rounds=1)
    path = Path(report.path)
    good = json.loads(path.read_text())
    foreign, wrong = json.dumps({**good, "key": {}}), json.dumps({**good, "algorithms": [1]})
    for text in ("", "{", "[]", "null", foreign, wrong, "[" * 100_000, "\xff"):
        path.write_text(text, "latin-1")
        with pytest.warns(UserWarning, match="ignored"):
            assert kernels(model, net) == {"conv_bf16"}
    names = {node.name: "direct" for node in report.nodes}
    for algorithms in ({}, {"no such node": "direct"}, dict.fromkeys(names, "winograd4"), dict.fromkeys(names, "rm -rf"),
                       dict.fromkeys(names, 7), {"*": "direct"}):  # winograd4 exists, but not at this precision
        path.write_text(json.dumps({**good, "algorithms": algorithms}))
        assert kernels(model, net) == {"conv_bf16"}
    path.write_text(json.dumps({**good, "algorithms": names}))
    assert kernels(model, net) == {"conv"}


def test_what_the_key_holds():
    net, model = convolutions()
    subject = session(model)
    runner, shapes = subject.runner, {name: x.shape for name, x in net.feeds.items()}
    one = tuned.key(runner.nodes, shapes, runner.options)
    other = session(convolutions()[1]).runner
    assert one == tuned.key(other.nodes, shapes, other.options)
    strided = model.clone()
    next(iter(strided.graph)).attributes["pads"] = ir.AttrInt64s("pads", [2, 1, 0, 1])
    assert one["graph"] != tuned.key(session(strided).runner.nodes, shapes, runner.options)["graph"]
    assert {"infold", "cpu", "isa", "threads", "precision", "graph", "shapes"} <= one.keys()
    assert tuned.path_of(one) != tuned.path_of({**one, "threads": 7})


def test_nothing_to_tune():
    net = Net()
    model = net.model(net("Relu", net.input(2, 3)))
    with pytest.raises(infold.UnsupportedError, match="nothing to tune"):
        tune(model, net.feeds)


def test_no_cache_folder(monkeypatch):
    net, model = convolutions()
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert np.isfinite(session(model).run(None, net.feeds)[0]).all()
