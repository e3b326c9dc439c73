from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest

from infold.cli import main


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs one command line in this process."""
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as exit:
            main([str(argument) for argument in arguments])
        return Result(exit.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def lenet(tmp_path: Path) -> Path:
    """A copy of the network of the demo: four BatchNorms, an open batch, input `image`, output `logits`."""
    copy = tmp_path / "lenet.onnx"
    copy.write_bytes((files("infold.demo") / "lenet.onnx").read_bytes())
    return copy
