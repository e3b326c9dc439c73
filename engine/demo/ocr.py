"""Read the text in a picture with PP-OCRv4: RapidOCR's own pipeline, infold's sessions in the place of onnxruntime's.

The package rapidocr-onnxruntime holds three models (text detection, text direction, text recognition) and the code
around them. Each of its three stages keeps an onnxruntime session; here every one is replaced by an
`infold.InferenceSession`, which takes the same calls, and the rest of the pipeline does not notice.
"""
from __future__ import annotations

import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import infold
from infold.errors import MissingDependencyError
from infold.host import cpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from rapidocr_onnxruntime import RapidOCR
    from rich.console import Console

# RapidOCR asks for an opencv that needs libGL, so it is installed without its dependencies, beside what it needs.
INSTALL = "pip install 'infold[demo]' && pip install --no-deps rapidocr-onnxruntime==1.4.4"
PICTURE = Path(__file__).with_name("notice.jpg")
STAGES = {                                      # stage: (part of RapidOCR, its attribute that runs the model, model)
    "detection": ("text_det", "infer", "ch_PP-OCRv4_det_infer.onnx"),
    "direction": ("text_cls", "infer", "ch_ppocr_mobile_v2.0_cls_infer.onnx"),
    "recognition": ("text_rec", "session", "ch_PP-OCRv4_rec_infer.onnx"),
}


def models() -> dict[str, Path]:
    """The model file of each stage, from the installed package.

    Raises MissingDependencyError if rapidocr-onnxruntime is not installed.
    """
    try:
        files = metadata.files("rapidocr-onnxruntime") or []
    except metadata.PackageNotFoundError as error:
        raise MissingDependencyError(f"rapidocr-onnxruntime is not installed; {INSTALL}") from error
    found = {file.name: Path(file.locate()) for file in files}
    return {stage: found[name] for stage, (_, _, name) in STAGES.items()}


class Timed:
    """A session, infold's or onnxruntime's, and the seconds spent in it."""

    def __init__(self, session: Any) -> None:
        self.session, self.seconds = session, 0.0
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

    def run(self, output_names: list[str] | None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        start = time.perf_counter()
        outputs = self.session.run(output_names, feeds)
        self.seconds += time.perf_counter() - start
        return outputs


class Reader:
    """RapidOCR with each stage's session made by `make_session(path)`."""

    def __init__(self, make_session: Callable[[str], Any]) -> None:
        from rapidocr_onnxruntime import RapidOCR

        self.pipeline: RapidOCR = RapidOCR()
        self.sessions = {stage: Timed(make_session(str(path))) for stage, path in models().items()}
        for stage, (part, attribute, _) in STAGES.items():
            getattr(getattr(self.pipeline, part), attribute).session = self.sessions[stage]

    def read(self, picture: Path) -> tuple[list[dict], dict[str, float]]:
        """The lines found, [{text, score, box: 4 corners}], and the milliseconds of each stage's model and of all."""
        for session in self.sessions.values():
            session.seconds = 0.0
        time.sleep(0.25)                        # the threads of whoever had the turn before spin on for a while
        start = time.perf_counter()
        found, _ = self.pipeline(str(picture))
        whole = time.perf_counter() - start
        lines = [{"text": text, "score": float(score), "box": box} for box, text, score in found or []]
        spent = {stage: session.seconds for stage, session in self.sessions.items()}
        return lines, {name: 1e3 * s for name, s in (spent | {"whole pipeline": whole}).items()}


def difference(lines: list[dict], expected: list[dict]) -> dict:
    """Whether two readings have the same text, and by how much their scores and corners (in pixels) differ at most."""
    if [line["text"] for line in lines] != [line["text"] for line in expected]:
        return {"same_text": False, "score": None, "box": None}
    apart = {key: max((float(np.abs(np.subtract(a[key], b[key])).max()) for a, b in zip(lines, expected)), default=0.0)
             for key in ("score", "box")}
    return {"same_text": True, **apart}


def take_turns(readers: dict[str, Reader], rounds: int) -> tuple[dict[str, list[dict]], dict[str, dict[str, float]]]:
    """Each reader's last reading, and the medians {stage: {reader: ms}} of `rounds` readings after one to warm up."""
    times: dict[str, dict[str, list[float]]] = {}
    for turn in range(rounds + 1):
        readings = {name: reader.read(PICTURE) for name, reader in readers.items()}
        for name, (_, stages) in readings.items() if turn else ():
            for stage, ms in stages.items():
                times.setdefault(stage, {}).setdefault(name, []).append(ms)
    medians = {stage: {name: statistics.median(ms) for name, ms in each.items()} for stage, each in times.items()}
    return {name: lines for name, (lines, _) in readings.items()}, medians


def run(console: Console, short: bool = False) -> dict:
    """Read the picture with both engines, compare and time them.

    Returns `ok`, `lines` [{text, score, box}], `difference` (from onnxruntime's reading), `folds` {stage: fold report},
    `fallbacks` (nodes without a native kernel) and `ms` {stage: {engine: ms}}.
    If the packages are missing: one line to the console, and {"skipped": why}.
    """
    from infold.demo import tables

    console.rule(f"PP-OCRv4 reads {PICTURE.name}")
    threads = cpus()
    try:
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        readers = {
            "infold": Reader(lambda path: infold.InferenceSession(path, infold.SessionOptions(threads))),
            "onnxruntime": Reader(lambda path: onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])),
        }
    except ImportError as error:
        console.print(f"skipped: {error}; to install what it needs: {INSTALL}", soft_wrap=True, markup=False)
        return {"skipped": str(error)}

    folds = {}
    for stage, path in models().items():
        _, report = infold.fold(infold.load(path))
        folds[stage] = report.to_dict()
        tables.fold_report(console, f"{stage}, {path.name}", report)

    rounds = 3 if short else 15
    readings, ms = take_turns(readers, rounds)
    lines, expected = readings["infold"], readings["onnxruntime"]
    for line in lines:
        console.print(f"{line['score']:.4f}  {line['text']}", markup=False, highlight=False)

    apart = difference(lines, expected)
    ok = bool(lines) and apart["same_text"] and apart["score"] < 1e-3 and apart["box"] <= 1
    if apart["same_text"]:
        console.print(f"onnxruntime reads the same {len(expected)} lines; scores differ by at most "
                      f"{apart['score']:.1e}, corners by {apart['box']:.0f} pixels: {'ok' if ok else 'NOT OK'}")
    else:
        console.print(f"NOT OK: onnxruntime reads {[line['text'] for line in expected]}", markup=False)

    fallbacks = [f"{node.op_type} {node.node!r}: {node.reason}"
                 for timed in readers["infold"].sessions.values() for node in timed.session.report.fallbacks]
    for fallback in fallbacks:
        console.print(f"not native: {fallback}", markup=False)
    tables.times(console, f"{threads} threads, median of {rounds}, taking turns", ms)
    return {"ok": ok, "lines": lines, "difference": apart, "folds": folds, "fallbacks": fallbacks, "ms": ms}
