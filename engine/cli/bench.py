"""`infold bench`: time infold beside every installed peer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infold.cli import common

if TYPE_CHECKING:
    from infold.report.bench import BenchReport


def bench(
    model: common.Model,
    threads: common.EngineThreads = 1,
    batch: common.Batch = None,
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    engines: common.Engines = None,
    rounds: common.Rounds = 10,
    seconds: common.Seconds = 0.3,
    accuracy: Annotated[bool, typer.Option(help="Measure each engine's error against a float64 run.")] = True,
    peers_folded: Annotated[
        bool, typer.Option("--peers-folded", help="Also time the peers on the model as folded by infold.")
    ] = False,
    training_mode: common.TrainingMode = "error",
    plot: Annotated[Path | None, typer.Option(help="Draw the result to this picture (.png, .svg, .pdf).")] = None,
    as_json: common.Json = False,
) -> None:
    """Time a model in infold and its peers, interleaved in one run."""
    from infold.cli import files
    from infold.importers import format_of
    from infold.report import bench as measuring

    with common.progress(f"Timing {model}") as advance:
        report = measuring.bench(
            files.load(model, shapes, weights, runs=True) if format_of(model) != "onnx" or weights else model,
            name=str(model),
            threads=threads,
            batch=batch,
            rounds=rounds,
            seconds=seconds,
            engines=engines,
            shapes=files.parse_shapes(shapes),
            accuracy=accuracy,
            peers_folded=peers_folded,
            training_mode=training_mode,
            progress=advance,
        )
    if plot is not None:
        from infold.report.plot import plot_bench

        files.write(plot, lambda made: plot_bench(report, made))
    common.answer(as_json, report.to_dict(), lambda: show(report))


def show(report: BenchReport) -> None:
    """Print the table of engines, and what they ran on."""
    times = ("median ms", "p10", "p90", "p99", "min")
    table = common.table("engine", "precision", numbers=(*times, "runs", "peer / infold", "error"))
    for name, timing in report.engines.items():
        facts = timing.to_dict()
        times = [f"{facts[key]:.3f}" for key in ("median_ms", "p10_ms", "p90_ms", "p99_ms", "min_ms")]
        ratio = "1"
        if name != "infold":
            low, high = report.interval[name]
            ratio = f"{report.ratio[name]:.2f} ({low:.2f}-{high:.2f})"
        error = "" if timing.error is None else f"{timing.error:.1e}"
        table.add_row(f"{name} {timing.version}", timing.precision, *times, str(facts["runs"]), ratio, error)
    console = common.out()
    console.print(table)
    for name, reason in report.failed.items():
        console.print(f"{name} could not run this model: {reason}")
    console.print(
        f"{report.model}, batch {report.batch}, {report.threads} thread(s); {report.cpu}, infold on {report.isa}; "
        "above 1 infold is faster (95 % interval)"
    )
