"""A user's script passes `mypy --strict`, and a wrong one does not: the types of what infold offers are there and say something."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import infold
import infold.importers

SCRIPT = """
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import infold


def classify(path: str, picture: NDArray[np.float32]) -> int:
    options = infold.SessionOptions(intra_op_num_threads=1, precision="high", enable_profiling=True)
    session = infold.InferenceSession(path, options)
    name: str = session.get_inputs()[0].name
    outputs = session.run(None, {name: picture})
    print(session.report.fold.folded, [step.ms for step in session.profile({name: picture})], session.end_profiling())
    return int(np.argmax(outputs[0]))


def shrink(path: str) -> list[str]:
    model, report = infold.fold(infold.load(path))
    try:
        checked = infold.verify(model, threads=1)
    except infold.InvalidInputError as error:
        raise SystemExit(str(error)) from error
    findings = [finding.remedy for finding in infold.doctor(path).findings]
    return [item.name for item in report.items if item.verdict == "folded" and checked.ok] + findings
"""
WRONG = """
import infold

infold.SessionOptions(intra_op_num_threads="two")
number: int = infold.fold(infold.load("m.onnx"))[1].items[0].name
infold.verify("m.onnx").alright
"""


def test_a_users_script(tmp_path: Path) -> None:
    package = tmp_path / "path" / "infold"  # as an installed one lies; mypy follows no import hooks, which editable ones are
    package.mkdir(parents=True)
    for entry in Path(infold.__file__).parent.iterdir():
        (package / entry.name).symlink_to(entry)
    if not (package / "importers").exists():
        (package / "importers").symlink_to(Path(infold.importers.__file__).parent)
    (tmp_path / "user.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text(WRONG)
    cache = Path(__file__).parent.parent / "build" / "mypy"  # of numpy and onnx, mostly
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), "--strict", "--follow-imports=silent",
               "--no-error-summary", "user.py", "wrong.py"]
    environment = {**os.environ, "MYPYPATH": str(package.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    errors = [tuple(line.split(":")[:2]) for line in done.stdout.splitlines() if " error: " in line]
    assert not done.stderr and errors == [("wrong.py", "4"), ("wrong.py", "5"), ("wrong.py", "6")], done.stdout
