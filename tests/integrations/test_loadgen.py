"""Sessions under MLPerf's LoadGen."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import infold
from infold.cli import app
from infold.integrations.loadgen import SCENARIOS, measure
from infold.report.inputs import random_inputs

LENET = Path(str(files("infold.demo") / "lenet.onnx"))


@pytest.fixture(scope="module")
def session() -> infold.InferenceSession:
    return infold.InferenceSession(LENET, infold.SessionOptions(intra_op_num_threads=1))


@pytest.fixture(scope="module")
def samples() -> list[dict[str, np.ndarray]]:
    model = infold.load(LENET)
    return [random_inputs(model, batch=1, seed=seed) for seed in range(6)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios_measure(session, samples, tmp_path, scenario):
    result = measure(session, samples, tmp_path, scenario, seconds=0.2, batch=3, rate=1000.0)
    assert result.scenario == scenario and result.queries >= (1 if scenario == "Offline" else 500)
    assert 0 < result.p50 <= result.p90 <= result.p99 and result.rate > 0
    assert (tmp_path / "mlperf_log_summary.txt").read_text().startswith("=")
    assert result.valid or result.reason


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_accuracy_logs_each_samples_result(session, samples, tmp_path, scenario):
    assert measure(session, samples, tmp_path, scenario, batch=4, accuracy=True) is None
    logged = json.loads((tmp_path / "mlperf_log_accuracy.json").read_text())
    assert sorted(entry["qsl_idx"] for entry in logged) == list(range(len(samples)))
    for entry in logged:
        [expected] = session.run(None, samples[entry["qsl_idx"]])
        said = np.frombuffer(bytes.fromhex(entry["data"]), np.float32).reshape(expected.shape)
        np.testing.assert_allclose(said, expected, rtol=1e-5, atol=1e-6)


def test_what_the_session_refuses_is_raised(session, samples, tmp_path):
    with pytest.raises(infold.InvalidInputError, match="image"):
        measure(session, [{"image": np.zeros((1, 1, 28, 27), np.float32)}], tmp_path)
    late = [*samples[:1], {"image": np.zeros((1, 1, 28, 28))}]  # LoadGen draws it in the run
    with pytest.raises(infold.InvalidInputError, match="float64"):
        measure(session, late, tmp_path, "Offline", seconds=0.1)
    with pytest.raises(infold.InvalidInputError, match="scenario 'Fast'"):
        measure(session, samples, tmp_path, "Fast")
    with pytest.raises(infold.InvalidInputError, match="at least one"):
        measure(session, [], tmp_path)


def test_command(tmp_path):
    options = ["--seconds", "0.1", "--shape", "image=1x1x28x28", "--json", "--logs", str(tmp_path / "logs")]
    done = CliRunner().invoke(app, ["loadgen", str(LENET), *options])
    said = json.loads(done.stdout)
    assert done.exit_code == (0 if said["valid"] else 1) and said["scenario"] == "SingleStream" and said["queries"] >= 500
    assert (tmp_path / "logs" / "mlperf_log_detail.txt").exists()
