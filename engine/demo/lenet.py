"""LeNet with BatchNorm, trained on scikit-learn's digits by train_lenet.py: fold, classify, verify, time."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import infold
from infold.errors import MissingDependencyError
from infold.report.bench import bench

if TYPE_CHECKING:
    from rich.console import Console

MODEL = Path(__file__).with_name("lenet.onnx")
DIGITS = Path(__file__).with_name("digits.npz")


def test_set() -> tuple[np.ndarray, np.ndarray]:
    """The held-out digits: images float32 [360,1,28,28] in 0..1, labels uint8 [360]."""
    with np.load(DIGITS, allow_pickle=False) as file:
        return file["images"].astype(np.float32) / 255, file["labels"]


def run(console: Console, short: bool = False) -> dict:
    """Fold the network, classify the held-out digits, verify, and time it beside onnxruntime.

    Returns `ok`, `batchnorms`, `folded`, `remaining`, `accuracy`, `outputs` (verify's), `ms` {batch: {engine: ms}}.

    Without onnxruntime there is nothing to time infold against, and `ms` is left out.
    """
    from infold.demo import tables

    console.rule("LeNet with BatchNorm, trained on scikit-learn's digits")
    images, labels = test_set()
    _, report = infold.fold(infold.load(MODEL))
    tables.fold_report(console, MODEL.name, report)

    session = infold.InferenceSession(MODEL, infold.SessionOptions(intra_op_num_threads=1))
    logits, = session.run(None, {"image": images})
    accuracy = float((logits.argmax(1) == labels).mean())
    console.print(f"classified {len(labels)} held-out digits: {accuracy:.2%} right")

    verdict = infold.verify(MODEL, {"image": images[:16]})
    console.print(verdict.summary(), markup=False)

    result = {"ok": verdict.ok and accuracy > 0.98 and report.remaining == 0, "accuracy": accuracy,
              "batchnorms": report.batchnorms, "folded": report.folded, "remaining": report.remaining,
              "outputs": verdict.to_dict()["outputs"]}
    try:
        result["ms"] = {f"batch {batch}": _milliseconds(batch, short) for batch in (1, 64)}
    except MissingDependencyError:
        console.print("onnxruntime is not installed: nothing to time beside infold")
    else:
        tables.times(console, "one thread, median, taking turns", result["ms"])
    return result


def _milliseconds(batch: int, short: bool) -> dict[str, float]:
    """The median of each engine on one thread."""
    rounds, seconds = (3, 0.05) if short else (10, 0.2)
    report = bench(MODEL, threads=1, batch=batch, rounds=rounds, seconds=seconds, accuracy=False,
                   engines=["onnxruntime"])
    return {name: timing.median_ms for name, timing in report.engines.items()}
