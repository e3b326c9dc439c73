from __future__ import annotations

import gc
import subprocess
import sys
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from infold import load
from infold.errors import InvalidInputError, MissingDependencyError
from infold.reference import run_float64
from infold.report import engines as registry
from infold.report.bench import bench, measure, prepare, ratio_interval, worst_error, write_folded
from infold.report.engines import Prepared
from infold.report.plot import plot_bench

LENET = str(files("infold.demo") / "lenet.onnx")


class Clock:
    """An engine that notes each of its runs in a log shared with others."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.prepared = Prepared(lambda: log.append(name), "1", "float32")


def test_engines_take_turns_in_an_order_that_rotates() -> None:
    log: list[str] = []
    times = measure({name: Clock(name, log).prepared for name in "abc"}, rounds=3, seconds=0, threads=1)
    turns = [log[0], *(name for before, name in pairwise(log) if name != before)]
    assert "".join(turns) == "abcbcacab"  # an engine that ends one round never starts the next
    assert all([len(runs) for runs in times[name]] == [3, 3, 3] for name in "abc")


def test_measuring_reports_progress_and_restores_garbage_collection() -> None:
    seen: list[tuple[int, int]] = []

    def fail() -> None:
        assert not gc.isenabled()
        raise RuntimeError("engine")

    measure({"a": Clock("a", []).prepared}, rounds=2, seconds=0, threads=1, progress=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]
    with pytest.raises(RuntimeError, match="engine"):
        measure({"a": Prepared(fail, "1", "float32")}, rounds=1, seconds=0, threads=1)
    assert gc.isenabled()


def test_the_interval_of_a_ratio_covers_it_and_narrows_with_rounds() -> None:
    generator = np.random.default_rng(1)

    def rounds(count: int, scale: float) -> list[np.ndarray]:
        return [scale * generator.lognormal(0, 0.1, 20) for _ in range(count)]

    few, many = (ratio_interval(rounds(count, 3.0), rounds(count, 2.0)) for count in (5, 200))
    assert few[0] < 1.5 < few[1] and many[0] < 1.5 < many[1]
    assert many[1] - many[0] < few[1] - few[0]


def test_drift_shared_by_both_engines_cancels_in_the_interval() -> None:
    own = [np.full(5, 1.0 + drift) for drift in range(10)]
    low, high = ratio_interval([2 * times for times in own], own)
    assert low == pytest.approx(2) and high == pytest.approx(2)


@pytest.mark.parametrize(
    ("got", "exact", "error"),
    [
        ([[1.0, 2.0]], [[1.0, 2.5]], 0.2),
        ([[1.0], [0.0]], [[1.0], [0.0]], 0.0),
        ([[np.nan, 1.0]], [[np.nan, 1.0]], 0.0),
        ([[np.inf, 1.0]], [[np.inf, 2.0]], 0.5),
        ([[np.nan]], [[1.0]], np.inf),
        ([[1.0, 2.0]], [[1.0]], np.inf),
        ([[]], [[]], 0.0),
    ],
)
def test_the_error_is_that_of_the_worst_output(got: list, exact: list, error: float) -> None:
    assert worst_error([np.array(y) for y in got], [np.array(r) for r in exact]) == pytest.approx(error)


def test_a_peer_that_fails_is_a_finding_and_infold_s_own_failure_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, feeds: object, threads: int) -> Prepared:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setitem(registry.ENGINES, "peer", refuse)
    ready, failed = prepare({"peer": LENET, "peer-folded": LENET}, {}, 1)
    assert not ready and failed == dict.fromkeys(("peer", "peer-folded"), "RuntimeError: no kernel for this")
    monkeypatch.setitem(registry.ENGINES, "infold", refuse)
    with pytest.raises(RuntimeError, match="no kernel"):
        prepare({"infold": LENET}, {}, 1)


def test_lenet_beside_its_peers() -> None:
    report = bench(LENET, threads=1, batch=2, rounds=2, seconds=0.01, engines=["onnxruntime"], peers_folded=True)
    document = report.to_dict()
    assert set(document["engines"]) == {"infold", "onnxruntime", "onnxruntime-folded"} and not document["failed"]
    for facts in document["engines"].values():
        assert {"median_ms", "p10_ms", "p90_ms", "p99_ms", "min_ms", "runs", "precision"} <= facts.keys()
        assert 0 < facts["min_ms"] <= facts["p10_ms"] <= facts["median_ms"] <= facts["p90_ms"] <= facts["p99_ms"]
        assert facts["runs"] >= 6 and facts["error"] < 1e-5
    medians = {name: facts["median_ms"] for name, facts in document["engines"].items()}
    assert document["ratio"]["onnxruntime"] == pytest.approx(medians["onnxruntime"] / medians["infold"])
    assert (document["threads"], document["batch"]) == (1, 2) and document["cpu"] and document["isa"]


def test_accuracy_is_optional_and_the_plot_is_a_picture(tmp_path: Path) -> None:
    report = bench(LENET, rounds=1, seconds=0, engines=["onnxruntime"], accuracy=False)
    assert {facts["error"] for facts in report.to_dict()["engines"].values()} == {None}
    plot_bench(report, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_requests_that_make_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="'onxruntime'"):
        bench(LENET, engines=["onxruntime"])
    with pytest.raises(InvalidInputError, match="threads"):
        bench(LENET, threads=0)
    monkeypatch.setitem(registry.ENGINES, "absent", lambda *_: None)
    monkeypatch.setitem(registry._MODULES, "absent", "infold_has_no_such_module")
    with pytest.raises(MissingDependencyError, match="absent"):
        bench(LENET, engines=["absent"])


def test_openvino_takes_the_shapes_it_is_given() -> None:
    pytest.importorskip("openvino")
    shape = [dim.dim_value or 3 for dim in onnx.load(LENET).graph.input[0].type.tensor_type.shape.dim]
    feeds = {onnx.load(LENET).graph.input[0].name: np.ones(shape, np.float32)}
    outputs = {name: registry.ENGINES[name](LENET, feeds, 1).run() for name in ("openvino", "onnxruntime")}
    np.testing.assert_allclose(outputs["openvino"][0], outputs["onnxruntime"][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", registry.installed(every=True))
def test_every_installed_engine_computes_the_same(name: str, tmp_path: Path) -> None:
    folded = write_folded(load(LENET), tmp_path / "folded.onnx")  # what every engine's importer understands
    feeds = {"image": np.random.default_rng(0).random((1, 1, 28, 28), np.float32)}
    exact = list(run_float64(load(LENET), feeds).values())
    prepared = registry.ENGINES[name](folded, feeds, 1)
    assert prepared.version and worst_error(prepared.run(), exact) < (2e-2 if "@" in name else 1e-5)


@pytest.mark.parametrize("name", registry.installed())
def test_engines_leave_standard_output_to_the_caller(name: str, tmp_path: Path) -> None:
    folded = write_folded(load(LENET), tmp_path / "folded.onnx")
    code = (
        "import numpy as np; from infold.report import engines\n"
        f"engines.ENGINES[{name!r}]({folded!r}, {{'image': np.zeros((1, 1, 28, 28), np.float32)}}, 1).run(); print('{{}}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"
