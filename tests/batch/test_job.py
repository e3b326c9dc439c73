from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, numpy_helper

pa = pytest.importorskip("pyarrow")
pytest.importorskip("PIL")
import pyarrow.parquet as pq  # noqa: E402
from jobs import DIGITS, LENET, alone, network, pictures, rows  # noqa: E402

import infold  # noqa: E402
from infold.batch.job import Summary, run  # noqa: E402
from infold.preprocess.graph import embed  # noqa: E402


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return pictures(tmp_path_factory.mktemp("data") / "pictures", 30)


def test_a_row_for_each_picture(paths: list[str], tmp_path: Path):
    seen = []
    summary = run(LENET, paths, tmp_path / "out", DIGITS, rows=16, progress=lambda done, total: seen.append((done, total)))
    assert summary == Summary(rows=30, resumed=0, unreadable=1, parts=2) and seen == [(0, 30), (16, 30), (30, 30)]
    assert sorted(os.listdir(tmp_path / "out")) == ["part-00000.parquet", "part-00001.parquet"]
    table = pq.read_table(tmp_path / "out")
    assert table["path"].to_pylist() == paths and table["error"].to_pylist()[5] == "not a readable picture (of no known format)"
    assert table["error"].null_count == 29
    for path, logits, shape in zip(paths, table["logits"].to_pylist(), table["logits.shape"].to_pylist()):
        if path.endswith("005.jpg"):
            assert logits is None and shape is None
            continue
        [expected] = alone([path]).values()
        assert shape == [1, 10]
        np.testing.assert_allclose(np.float32([logits]), expected, rtol=1e-5, atol=1e-5)
        assert np.std(expected) > 0.1


def test_neither_threads_nor_parts_nor_neighbours_change_a_bit(paths: list[str], tmp_path: Path):
    run(LENET, paths, tmp_path / "a", DIGITS)
    run(LENET, paths, tmp_path / "b", DIGITS, rows=8, options=infold.SessionOptions(intra_op_num_threads=1))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    run(LENET, paths[3:20:2], tmp_path / "c", DIGITS)
    assert rows(tmp_path / "c") == rows(tmp_path / "a")[3:20:2]


def test_a_run_that_was_killed_goes_on_where_it_was(paths: list[str], tmp_path: Path):
    run(LENET, paths, tmp_path / "whole", DIGITS, rows=8)
    out = tmp_path / "out"
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from jobs import DIGITS, LENET
from infold.batch.job import run
run(LENET, {paths!r}, {str(out)!r}, DIGITS, rows=8, progress=lambda done, total: time.sleep(600 if done == 16 else 0))
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline = time.monotonic() + 60
        while not (out / "part-00001.parquet").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(infold.InvalidInputError, match="another run is writing there"):
            run(LENET, paths, out, DIGITS, rows=8)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert {".model.infold", "part-00000.parquet", "part-00001.parquet"} <= set(os.listdir(out))
    assert not (out / "part-00002.parquet").exists()
    (out / ".part-00002.parquet.x1y2").mkdir()  # as if it had been killed while it wrote
    (out / ".part-00002.parquet.x1y2" / "part-00002.parquet").write_bytes(b"PAR1")
    written = [out / f"part-0000{number}.parquet" for number in range(2)]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in written]
    assert run(LENET, paths, out, DIGITS, rows=8) == Summary(rows=30, resumed=16, unreadable=0, parts=4)
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in written] == before
    assert rows(out) == rows(tmp_path / "whole") and len(os.listdir(out)) == 4
    assert run(LENET, paths, out, DIGITS, rows=8).resumed == 30


def test_what_another_job_has_written_is_left_alone(paths: list[str], tmp_path: Path):
    out = tmp_path / "out"
    run(LENET, paths[:8], out, DIGITS, rows=8)
    before = rows(out)
    model = onnx.load(LENET)
    bias = next(tensor for tensor in model.graph.initializer if tensor.dims == [10])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), bias.name))
    onnx.save(model, tmp_path / "other.onnx")
    for change in ({"model": tmp_path / "other.onnx"}, {"preprocess": replace(DIGITS, mean=0.5)}, {"files": paths[1:9]},
                   {"batch": 4}, {"files": paths[:4], "rows": 4, "batch": 4}):
        with pytest.raises(infold.InvalidInputError, match="is of another job"):
            run(**{"model": LENET, "files": paths[:8], "output": out, "preprocess": DIGITS, "rows": 8} | change)
    assert run(LENET, paths[:9], out, DIGITS, rows=8).resumed == 8  # its first part is the same
    with pytest.raises(infold.InvalidInputError, match=r"part-00001\.parquet is of another job"):
        run(LENET, paths[:8], out, DIGITS, rows=8)
    (out / "part-00001.parquet").unlink()
    assert rows(out) == before
    os.utime(paths[0])
    with pytest.raises(infold.InvalidInputError, match="is of another job"):
        run(LENET, paths[:8], out, DIGITS, rows=8)
    (out / "part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(infold.InvalidInputError, match="no part that could be read"):
        run(LENET, paths[:8], out, DIGITS, rows=8)


def test_pictures_keep_their_sizes(tmp_path: Path):
    """One by one, as they are; and what a model cannot take for its size is a row with an error."""
    paths = pictures(tmp_path / "a", 2) + pictures(tmp_path / "b", 1, 9, 12)
    declared = infold.Preprocess(color="gray", max_pixel_value=1)
    assert run(network(tmp_path), paths, tmp_path / "out", declared).unreadable == 0
    for path, row in zip(paths, pq.read_table(tmp_path / "out").to_pylist()):
        np.testing.assert_array_equal(np.float32(row["y"]).reshape(row["y.shape"]), declared([path]))
    session = onnx.load(tmp_path / "net.onnx")
    session.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 40
    onnx.save(session, tmp_path / "fixed.onnx")
    assert run(tmp_path / "fixed.onnx", paths, tmp_path / "fixed", declared).unreadable == 1
    assert "must be 40" in pq.read_table(tmp_path / "fixed")["error"].to_pylist()[2]


@pytest.mark.parametrize(("kind", "dtype"), [(TensorProto.FLOAT16, "float16"), (TensorProto.UINT8, "uint8")])
def test_other_types(paths: list[str], tmp_path: Path, kind: int, dtype: str):
    declared = infold.Preprocess(color="gray", crop=20, max_pixel_value=1, dtype=dtype)
    run(network(tmp_path, kind=kind, op="Identity"), paths[:3], tmp_path / "out", declared)
    table = pq.read_table(tmp_path / "out")
    assert table.schema.field("y").type.value_type == pa.from_numpy_dtype(dtype)
    np.testing.assert_array_equal(np.array(table["y"].to_pylist(), dtype).reshape(3, 1, 20, 20), declared(paths[:3]))


@pytest.mark.parametrize(("form", "given", "error", "words"), [
    ({"batch": 4}, {"batch": 5}, infold.InvalidInputError, "fixes the batch at 4"),
    ({"batch": 4}, {"preprocess": infold.Preprocess(color="gray")}, infold.InvalidInputError, "pictures of one size"),
    ({}, {"preprocess": infold.Preprocess(crop=20)}, infold.InvalidInputError, "dimension 1 must be 1"),
    ({"output": "error"}, {}, infold.UnsupportedError, "two columns would be called 'error'"),
    ({"kind": TensorProto.BFLOAT16}, {}, infold.UnsupportedError, "Arrow has no type"),
    ({"op": "ReduceMax"}, {}, infold.UnsupportedError, "no row for each of 8"),
    ({}, {"engine": "spark"}, infold.UnsupportedError, "engine 'spark'"),
    ({}, {"workers": 3}, infold.UnsupportedError, "one process"),
])
def test_what_makes_no_job(paths: list[str], tmp_path: Path, form: dict, given: dict, error: type, words: str):
    declared = given.pop("preprocess", infold.Preprocess(color="gray", crop=20))
    with pytest.raises(error, match=words):
        run(network(tmp_path, **form), paths[:8], tmp_path / "out", declared, **given)
    assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")


def test_a_fixed_batch_and_a_compiled_model(paths: list[str], tmp_path: Path):
    declared = infold.Preprocess(color="gray", crop=20)
    run(network(tmp_path, batch=4), paths, tmp_path / "four", declared)
    run(network(tmp_path), paths, tmp_path / "open", declared)
    assert rows(tmp_path / "four") == rows(tmp_path / "open")
    infold.compile(LENET, tmp_path / "a.infold", [{"image": (8, 1, 28, 28)}])
    with pytest.raises(infold.UnsupportedError, match="compiled already"):
        run(tmp_path / "a.infold", paths, tmp_path / "out", DIGITS)


def test_a_model_that_took_its_preprocessing_in(paths: list[str], tmp_path: Path):
    folded, report = infold.fold(embed(infold.load(LENET), DIGITS))
    assert report.remaining == 0
    onnx_ir.save(folded, tmp_path / "pixels.onnx")
    run(LENET, paths, tmp_path / "outside", DIGITS)
    run(tmp_path / "pixels.onnx", paths, tmp_path / "inside", DIGITS.rest)
    outside, inside = (pq.read_table(tmp_path / name) for name in ("outside", "inside"))
    assert outside["error"] == inside["error"] and outside["path"] == inside["path"]
    for one, other in zip(outside["logits"].drop_null().to_pylist(), inside["logits"].drop_null().to_pylist(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
