"""Batches on a Ray cluster of two CPUs on this machine; `make batch`."""
from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import ray.data
from jobs import DIGITS, LENET, alone, network, pictures, rows

import infold
from infold.batch.job import run
from infold.integrations.ray import Predictor


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def actors() -> list[int]:
    """The processes that map a compiled model, other than this one: those of the job at work."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid() and ".model.infold" in (entry / "maps").read_text():
                found.append(int(entry.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def test_a_worker_that_is_killed_loses_nothing(cluster: None, tmp_path: Path):
    paths = pictures(tmp_path / "pictures", 32, 1800, 2400)
    run(LENET, paths, tmp_path / "local", DIGITS, rows=4, batch=4)
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if 0 < done < total and not killed:
            os.kill(actors()[0], signal.SIGKILL)
            killed.append(done)

    summary = run(LENET, paths, tmp_path / "ray", DIGITS, rows=4, batch=4, engine="ray", progress=kill)
    assert summary.rows == 32 and summary.unreadable == 1 and summary.parts == 8
    assert killed and killed[0] <= 16  # parts were still to be computed
    assert rows(tmp_path / "ray") == rows(tmp_path / "local")
    assert len(os.listdir(tmp_path / "ray")) == 8


def test_one_engine_goes_on_with_what_the_other_began(cluster: None, tmp_path: Path):
    paths = pictures(tmp_path / "pictures", 20)
    run(LENET, paths, tmp_path / "local", DIGITS, rows=8)
    run(LENET, paths[:8], tmp_path / "out", DIGITS, rows=8)
    assert run(LENET, paths, tmp_path / "out", DIGITS, rows=8, engine="ray", workers=1).resumed == 8
    assert rows(tmp_path / "out") == rows(tmp_path / "local")


def test_in_a_pipeline_of_ray_data(cluster: None, tmp_path: Path):
    paths = pictures(tmp_path / "pictures", 12)
    infold.compile(LENET, tmp_path / "a.infold", [{"image": (4, 1, 28, 28)}])
    (tmp_path / "digits.toml").write_text('color = "gray"\nresize = [28, 28]\nmean = 0.1307\nstd = 0.3081\n')
    named = ray.data.from_items([{"path": path, "label": index} for index, path in enumerate(paths)])
    encoded = ray.data.read_binary_files(paths, include_paths=True).rename_columns({"path": "file"})
    expected = alone(paths)
    for dataset, options, size in ((named, {}, 2), (encoded, {"column": "bytes"}, 1)):  # reading takes a CPU
        found = dataset.map_batches(
            Predictor, fn_constructor_args=[str(tmp_path / "a.infold"), str(tmp_path / "digits.toml")],
            fn_constructor_kwargs={"batch": 4, **options}, batch_size=5, compute=ray.data.ActorPoolStrategy(size=size)).take_all()
        kept = {"file"} if options else {"path", "label"}
        assert len(found) == 12 and set(found[0]) == {"logits", "logits.shape", "error"} | kept
        for row in found:
            path = row.get("path", row.get("file"))
            if path.endswith("005.jpg"):
                assert row["logits"] is None and "of no known format" in row["error"]
                continue
            assert row["error"] is None and ("label" not in row or paths[row["label"]] == path)
            np.testing.assert_allclose(np.float32(row["logits"])[None], expected[path], rtol=1e-5, atol=1e-5)


def test_an_error_of_the_model_is_one_of_the_run(cluster: None, tmp_path: Path):
    paths = pictures(tmp_path / "pictures", 4)
    with pytest.raises(infold.Error, match=r"the run on Ray ended: the output 'y' of shape .* has no row for each of 8"):
        run(network(tmp_path, op="ReduceMax"), paths, tmp_path / "out", infold.Preprocess(color="gray", crop=20), engine="ray")
    assert not os.listdir(tmp_path / "out")
