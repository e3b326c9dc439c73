"""`infold run`: run a model once on given or random inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infold.cli import common


def run(
    model: common.Model,
    inputs: common.Inputs = None,
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    preprocess: common.Preprocessing = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the outputs to this .npz.")] = None,
    threads: common.Threads = 0,
    training_mode: common.TrainingMode = "error",
    as_json: common.Json = False,
) -> None:
    """Run a model and show (or write) its outputs."""
    import time

    import infold
    from infold.cli import files
    from infold.compiled import is_compiled
    from infold.report.inputs import inputs_of

    with common.working(f"Preparing {model}"):
        options = infold.SessionOptions(intra_op_num_threads=threads, training_mode=training_mode)
        if is_compiled(model):
            session = infold.InferenceSession(model, options)
            loaded = inputs_of(session)
        else:
            loaded = files.load(model, shapes, weights, runs=True)
            session = None
        feeds = files.read_inputs(loaded, inputs, files.parse_shapes(shapes), files.preprocessing(preprocess))
        session = session or infold.InferenceSession(loaded, options)
    with common.working(f"Running {model}"):
        start = time.perf_counter()
        values = session.run(None, feeds)
        elapsed = (time.perf_counter() - start) * 1e3
    outputs = {argument.name: value for argument, value in zip(session.get_outputs(), values)}
    if output is not None:
        files.write_npz(outputs, output)
    summary = [summarise(name, value) for name, value in outputs.items()]
    document = {"model": str(model), "ms": elapsed, "outputs": summary, "written": output}
    common.answer(as_json, document, lambda: _show(summary, elapsed, output))


def summarise(name: str, value: object) -> dict:
    """Name, shape, dtype, and for numbers the smallest, largest and mean value and how many are not finite."""
    import numpy as np

    if not isinstance(value, np.ndarray):
        return {"name": name, "type": type(value).__name__}
    facts = {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
    if value.size and value.dtype.kind in "fiub":
        finite = value[np.isfinite(value)].astype(np.float64)
        facts["not_finite"] = value.size - finite.size
        if finite.size:
            facts |= {"min": finite.min(), "max": finite.max(), "mean": finite.mean()}
    return facts


def _show(summary: list[dict], elapsed: float, output: Path | None) -> None:
    table = common.table("output", "shape", "dtype", "min", "max", "mean", "not finite")
    for facts in summary:
        numbers = [f"{facts[key]:.6g}" if key in facts else "" for key in ("min", "max", "mean")]
        table.add_row(
            facts["name"],
            "x".join(map(str, facts.get("shape", []))),
            facts.get("dtype", facts.get("type")),
            *numbers,
            str(facts.get("not_finite", "")),
        )
    common.out().print(table)
    common.out().print(f"{elapsed:.3f} ms for the first run" + (f", written to {output}" if output else ""))
