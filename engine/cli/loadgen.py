"""`infold loadgen`: a model under MLPerf's load generator."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from infold.cli import common

SAMPLES = 16  # random ones that LoadGen draws from


def loadgen(
    model: common.Model,
    scenario: Annotated[
        Literal["SingleStream", "Offline", "Server"],
        typer.Option(help="One query after the other, all at once, or at random moments."),
    ] = "SingleStream",
    seconds: Annotated[float, typer.Option(min=0.0, help="A run lasts at least so long.")] = 10.0,
    batch: Annotated[
        int, typer.Option("--batch", "-b", min=1, help="How many samples that wait run together (of an open batch).")
    ] = 1,
    rate: Annotated[
        float | None, typer.Option(help="Samples a second that Server sends.", show_default="half of what the model can do")
    ] = None,
    bound: Annotated[float, typer.Option(help="Milliseconds in which 99 of 100 queries of Server are to be answered.")] = 100.0,
    logs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep LoadGen's logs in this folder.", show_default=False)
    ] = None,
    threads: common.Threads = 0,
    precision: common.Precision = "highest",
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    as_json: common.Json = False,
) -> None:
    """Measure a model with MLPerf's LoadGen, on random inputs; exits with 1 if LoadGen calls the run invalid."""
    import infold
    from infold.cli import files
    from infold.integrations.loadgen import measure
    from infold.report.inputs import random_inputs

    with common.working(f"{scenario} of {model}"), TemporaryDirectory() as scratch:
        loaded = files.load(model, shapes, weights, runs=True)
        samples = [random_inputs(loaded, files.parse_shapes(shapes), seed=seed) for seed in range(SAMPLES)]
        session = infold.InferenceSession(loaded, infold.SessionOptions(intra_op_num_threads=threads, precision=precision))
        folder = logs if logs is not None else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(session, samples, folder, scenario, seconds=seconds, batch=batch, rate=rate, bound=bound * 1e-3)
    if as_json:
        common.print_json({"model": str(model), **result.to_dict()})
    else:
        common.out().print(
            f"{scenario}: {result.rate:.1f} samples/s; latency {result.mean:.3f} ms (mean), {result.p50:.3f} (p50), "
            f"{result.p90:.3f} (p90), {result.p99:.3f} (p99) of {result.queries} queries; "
            + ("valid" if result.valid else f"invalid: {result.reason}")
        )
    if not result.valid:
        raise typer.Exit(1)
