"""`infold doctor`: what is wrong with a model's BatchNorms, why it hurts, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infold.cli import common

if TYPE_CHECKING:
    from infold.report.doctor import DoctorReport

COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


def doctor(
    model: common.Model,
    layers: Annotated[bool, typer.Option("--layers", help="Show the statistics of every BatchNorm.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the statistics by layer to this picture (.png, .svg, .pdf).")] = None,
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    as_json: common.Json = False,
) -> None:
    """Find and explain BatchNorm trouble in a model; exit code 1 if there is an error among the findings."""
    import infold
    from infold.cli import files

    with common.working(f"Examining {model}"):
        report = infold.doctor(files.load(model, shapes, weights))
        if plot is not None:
            from infold.report.doctor_plot import plot_statistics

            files.write(plot, lambda made: plot_statistics(report, made, title=model.name))
    common.answer(as_json, {"model": str(model), **report.to_dict()}, lambda: show(report, layers))
    if not report.ok:
        raise typer.Exit(1)


def show(report: DoctorReport, layers: bool) -> None:
    """Print the findings, each with its remedy, nodes of the same finding together; on request the statistics."""
    from rich.table import Table
    from rich.text import Text

    console = common.out()
    if layers and report.layers:
        _show_layers(report)
    groups: dict[tuple, list] = {}
    for finding in report.findings:
        groups.setdefault((finding.severity, finding.kind, finding.remedy), []).append(finding)
    table = Table("severity", "BatchNorm", "finding, and why it hurts", "what to do", show_lines=True)
    for (severity, kind, remedy), findings in groups.items():
        first, more = findings[0], len(findings) - 1
        name = first.node + (f"\nand {more} more" if more else "")
        table.add_row(Text(severity, style=COLOURS[severity]), name, f"{kind}: {first.message}", remedy)
    if groups:
        console.print(table)
    counts = [f"{sum(f.severity == severity for f in report.findings)} {severity}" for severity in COLOURS]
    console.print(f"{len(report.layers)} BatchNorms examined; findings: {', '.join(counts)}")


def _show_layers(report: DoctorReport) -> None:
    spreads = ("mean of means", "spread of means", "mean of variances", "spread of variances")
    table = common.table("BatchNorm", numbers=("channels", *spreads))
    for layer in report.layers:
        numbers = (layer.mean_of_mean, layer.std_of_mean, layer.mean_of_var, layer.std_of_var)
        table.add_row(layer.name, str(layer.channels or ""), *("" if n is None else f"{n:.4g}" for n in numbers))
    common.out().print(table)
