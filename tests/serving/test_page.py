"""The Python of docs/serving.md works as shown, against the server that the page starts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import serving

import infold

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "docs"))
from test_blocks import FENCE, network  # noqa: E402


def test_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(network(1, 3, 32, 32), "model.onnx")
    names = {"infold": infold, "np": np, "x": np.random.default_rng(6).uniform(size=(1, 3, 32, 32)).astype(np.float32)}
    blocks = [text for language, text in FENCE.findall((ROOT / "docs" / "serving.md").read_text()) if language == "python"]
    assert blocks
    with serving.served(Path("model.onnx")) as server:
        for text in blocks:
            exec(compile(text.replace("127.0.0.1:8080", server.http), "docs/serving.md", "exec"), names)
    assert names["result"].as_numpy("y").any()
