"""Programs written for onnxruntime, run on infold by `infold exec`."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
options.intra_op_num_threads = 1
options.log_severity_level = 4
session = ort.InferenceSession(sys.argv[1], sess_options=options, providers=["CPUExecutionProvider"], provider_options=[{}])
[given] = session.get_inputs()
x = np.random.default_rng(0).random([n if isinstance(n, int) else 2 for n in given.shape], np.float32)
try:
    session.run(None, {given.name: x.astype(np.float64)})
    refused = ""
except InvalidArgument as error:
    refused = str(error)
meta = session.get_modelmeta()
print(json.dumps({"by": type(session).__mro__[1].__module__, "outputs": session.run(None, {given.name: x})[0].tolist(),
                  "device": ort.get_device(), "refused": refused, "graph": meta.graph_name, "map": meta.custom_metadata_map}))
"""
READ = """
import json, sys
import onnxruntime
from rapidocr_onnxruntime import RapidOCR
found, _ = RapidOCR()(sys.argv[1])
print(json.dumps({"by": onnxruntime.InferenceSession.__module__, "text": [text for _, text, _ in found]}))
"""


def run(program: str, argument: Path, infold: bool) -> dict:
    prefix = [sys.executable, "-c", "from infold.cli import main; main()", "exec", "--"] if infold else []
    done = subprocess.run([*prefix, sys.executable, "-c", program, str(argument)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_program():
    model = Path(str(files("infold.demo") / "lenet.onnx"))
    ours, theirs = run(PROGRAM, model, True), run(PROGRAM, model, False)
    assert ours["by"] == "infold.api" and theirs["by"].startswith("onnxruntime")
    assert "float64" in ours["refused"] and theirs["refused"]
    assert ours["outputs"] == [pytest.approx(row, rel=1e-4, abs=1e-4) for row in theirs["outputs"]]
    assert {key: ours[key] for key in ("device", "graph", "map")} == {key: theirs[key] for key in ("device", "graph", "map")}


def test_rapidocr():
    pytest.importorskip("rapidocr_onnxruntime")
    picture = Path(str(files("infold.demo") / "notice.jpg"))
    ours, theirs = run(READ, picture, True), run(READ, picture, False)
    assert ours["by"].startswith("infold.") and theirs["by"].startswith("onnxruntime")
    assert len(ours["text"]) > 5 and ours["text"] == theirs["text"]


def test_no_such_program():
    done = subprocess.run([sys.executable, "-c", "from infold.cli import main; main()", "exec", "--", "no-such-program"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no-such-program" in done.stderr
