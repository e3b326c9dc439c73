from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")
Image = pytest.importorskip("PIL.Image")
import pyarrow.parquet as pq  # noqa: E402


def test_batch(cli: Callable, lenet: Path, tmp_path: Path) -> None:
    for index in range(5):
        Image.fromarray(np.full((30, 30), 40 * index, np.uint8)).save(tmp_path / f"{index}.png")
    (tmp_path / "3.png").write_bytes(b"")
    (tmp_path / "digits.toml").write_text('color = "gray"\nresize = [28, 28]\n')
    (tmp_path / "out").mkdir()
    command = ("batch", lenet, "-i", f"{tmp_path}/*.png", "-o", tmp_path / "out", "--preprocess", tmp_path / "digits.toml")
    assert cli(*command, "--json", "--batch", 2, "--rows", 4).json == {
        "model": str(lenet), "written": str(tmp_path / "out"), "rows": 5, "resumed": 0, "unreadable": 1, "parts": 2}
    assert pq.read_table(tmp_path / "out").num_rows == 5
    (tmp_path / "out" / "part-00001.parquet").unlink()
    result = cli(*command, "--batch", 2, "--rows", 4)
    assert result.code == 0 and "5 rows in 2 part(s)" in result.out and "4 of them by an earlier run" in result.out
    for arguments, words in (
        (command, "of another job"),
        (command[:-2], "--preprocess"),
        ((*command[:2], "-i", f"{tmp_path}/*.gif", *command[4:]), "no such file"),
        ((*command, "--engine", "spark"), "spark"),
    ):
        result = cli(*arguments)
        assert result.code == 2 and words in result.err, result
