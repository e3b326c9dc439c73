"""LeNet with BatchNorm, trained on scikit-learn's digits by train_lenet.py: fold, classify, verify, time."""
from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import infold

if TYPE_CHECKING:
    from rich.console import Console

MODEL = Path(__file__).with_name("lenet.onnx")
DIGITS = Path(__file__).with_name("digits.npz")


def test_set() -> tuple[np.ndarray, np.ndarray]:
    """The held-out digits: images float32 [360,1,28,28] in 0..1, labels uint8 [360]."""
    with np.load(DIGITS, allow_pickle=False) as file:
        return file["images"].astype(np.float32) / 255, file["labels"]


def run(console: Console, short: bool = False) -> dict:
    """Returns `ok`, `batchnorms`, `folded`, `remaining`, `accuracy`, `outputs` (verify's), `ms` {batch: {engine: ms}}.

    Without onnxruntime there is nothing to time infold against, and `ms` is left out.
    """
    from infold.demo import _show

    console.rule("LeNet with BatchNorm, trained on scikit-learn's digits")
    images, labels = test_set()
    _, report = infold.fold(infold.load(MODEL))
    _show.fold_report(console, MODEL.name, report)

    session = infold.InferenceSession(MODEL, infold.SessionOptions(intra_op_num_threads=1))
    logits, = session.run(None, {"image": images})
    accuracy = float((logits.argmax(1) == labels).mean())
    console.print(f"classified {len(labels)} held-out digits: {accuracy:.2%} right")

    verdict = infold.verify(MODEL, {"image": images[:16]})
    for output in verdict.outputs:
        console.print(f"verify {output.name}: error against a float64 run {output.error:.1e}, "
                      f"onnxruntime's {output.onnxruntime_error:.1e}: {'ok' if verdict.ok else 'NOT OK'}")

    result = {"ok": verdict.ok and accuracy > 0.98 and report.remaining == 0, "accuracy": accuracy,
              "batchnorms": report.batchnorms, "folded": report.folded, "remaining": report.remaining,
              "outputs": verdict.to_dict()["outputs"]}
    try:
        import onnxruntime
    except ImportError:
        console.print("onnxruntime is not installed: nothing to time beside infold")
        return result
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    peer = onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
    result["ms"] = {}
    for batch in (1, 64):
        feeds = {"image": images[:batch]}
        calls = {"infold": partial(session.run, None, feeds), "onnxruntime": partial(peer.run, None, feeds)}
        result["ms"][f"batch {batch}"] = _show.interleaved(calls, 30 if short else 300)
    _show.times(console, "one thread, median, taking turns", result["ms"])
    return result
