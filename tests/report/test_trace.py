"""Chrome traces of a session's runs."""

from __future__ import annotations

import json
import threading
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from session_harness import together

import infold


@pytest.fixture
def feeds() -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(0).random((1, 1, 28, 28), np.float32)}


def traced(folder: Path) -> infold.InferenceSession:
    options = infold.SessionOptions(intra_op_num_threads=1, enable_profiling=True, profile_file_prefix=str(folder / "trace_"))
    return infold.InferenceSession(files("infold.demo") / "lenet.onnx", options)


def events(path: str) -> list[dict]:
    return [event for event in json.loads(Path(path).read_text())["traceEvents"] if event["ph"] == "X"]


def test_every_run_and_every_step_is_in_it(tmp_path: Path, feeds: dict) -> None:
    session = traced(tmp_path)
    plain = infold.InferenceSession(files("infold.demo") / "lenet.onnx")
    for _ in range(3):
        np.testing.assert_array_equal(session.run(None, feeds)[0], plain.run(None, feeds)[0])
    path = session.end_profiling()
    assert Path(path).parent == tmp_path and Path(path).name.startswith("trace_") and path.endswith(".json")
    found = events(path)
    runs, steps = ([event for event in found if (event["cat"] == "session") == whole] for whole in (True, False))
    assert len(runs) == 3 and len(steps) == 3 * len(session.profile(feeds, runs=1))
    assert {"conv", "pool"} <= {event["cat"] for event in steps} and all(event["dur"] >= 0 for event in found)
    for run in runs:
        inside = [step for step in steps if run["ts"] <= step["ts"] and step["ts"] + step["dur"] <= run["ts"] + run["dur"] + 1e-3]
        assert len(inside) == len(steps) // 3
        assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-3 for a, b in pairwise(inside)), "steps overlap"


def test_threads_have_lanes_of_their_own(tmp_path: Path, feeds: dict) -> None:
    session = traced(tmp_path)
    both = threading.Barrier(2)

    def work() -> None:
        both.wait()
        session.run(None, feeds)

    together(work, work)
    assert len({event["tid"] for event in events(session.end_profiling())}) == 2


def test_without_the_option_there_is_nothing_to_end() -> None:
    with pytest.raises(infold.InvalidInputError, match="enable_profiling"):
        infold.InferenceSession(files("infold.demo") / "lenet.onnx").end_profiling()
