"""`infold report`: everything about one model, as a page, as text or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infold.cli import common

if TYPE_CHECKING:
    from infold.report.overview import Overview


def report(
    model: common.Model,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the page to this .html file.")] = None,
    threads: common.EngineThreads = 1,
    batch: common.Batch = None,
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    engines: common.Engines = None,
    rounds: common.Rounds = 10,
    seconds: common.Seconds = 0.3,
    training_mode: common.TrainingMode = "error",
    as_json: common.Json = False,
) -> None:
    """Tell all about a model: graph, BatchNorms, time and roofline, memory, peers, accuracy, doctor's findings."""
    from infold.cli import files
    from infold.report.overview import overview
    from infold.report.plain import plain

    loaded = files.load(model, shapes, weights, runs=True)
    with common.stages() as progress:
        found = overview(
            loaded,
            name=model.name,
            threads=threads,
            batch=batch,
            shapes=files.parse_shapes(shapes),
            engines=engines,
            rounds=rounds,
            seconds=seconds,
            training_mode=training_mode,
            progress=progress,
        )
    document = plain(found.to_dict())
    if output is not None:
        from infold.report.page import render

        files.refuse_overwriting(output, source=model)
        page = render(document)
        files.write(output, lambda made: made.write_text(page, encoding="utf-8"))
    if as_json:
        common.print_json(document)
    elif output is None:
        show(found)
    else:
        common.out().print(f"written to {output}")


def show(found: Overview) -> None:
    """Print the same as text: the tables of the other commands one after the other."""
    from infold.cli import bench, doctor, fold, profile, verify

    console = common.out()
    for title, part in (
        ("BatchNorms", lambda: fold.show(found.fold, found.stories)),
        ("Time and roofline", lambda: profile.show_layers(found.layers)),
        ("Latency", lambda: bench.show(found.bench)),
        ("Accuracy", lambda: verify.show(found.accuracy)),
        ("Doctor", lambda: doctor.show(found.doctor, layers=False)),
    ):
        console.rule(title)
        part()
    console.rule("Memory")
    memory, mib = found.memory, 2.0**-20
    console.print(
        f"arena {memory.arena_bytes * mib:.1f} MiB ({memory.unshared_bytes * mib:.1f} MiB unshared), "
        f"weights {memory.weight_bytes * mib:.1f} MiB; graph: {found.graph.nodes_before} nodes before, "
        f"{found.graph.nodes_after} after"
    )
