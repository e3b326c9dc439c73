"""`infold fold`: write a model with its BatchNorms folded away, and say of each where it went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infold.cli import common

if TYPE_CHECKING:
    from infold.report.fold import FoldReport


def fold(
    model: common.Model,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the folded model to this .onnx.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="For every BN, the rule and condition that decided.")
    ] = False,
    training_mode: common.TrainingMode = "batch",
    as_json: common.Json = False,
) -> None:
    """Fold a model's BatchNorms into their neighbours; the result is plain ONNX for any runtime."""
    import infold
    from infold.cli import files
    from infold.passes import training
    from infold.report.fused import planned

    with common.working(f"Folding {model}"):
        folded, report = infold.fold(training.resolve(infold.load(model), training_mode))
        report = planned(folded, report)
        if output is not None:
            files.write_model(folded, output, source=model)
    if as_json:
        common.print_json({"model": str(model), "written": output, **report.to_dict()})
    else:
        show(report, explain)
        if report.fused:
            common.out().print("fused: a node of the ONNX model still, but no pass of its own in infold's session")
        common.out().print(
            f"written to {output}" if output else "nothing written: give --output FILE to keep the folded model"
        )


def show(report: FoldReport, explain: bool) -> None:
    """Print the table of every BN with its verdict, and the count."""
    from rich.table import Table
    from rich.text import Text

    table = Table("BatchNorm", "verdict", "into", *(["why"] if explain else []))
    colours = {"folded": "green", "fused": "cyan", "kept": "yellow"}
    for item in report.items:
        why = [item.reason or ""] if explain else []
        verdict = Text(item.verdict, style=colours[item.verdict])
        table.add_row(item.name, verdict, item.into or ("" if explain else item.reason) or "", *why)
    if report.items:
        common.out().print(table)
    common.out().print(
        f"{report.batchnorms} BatchNorms: {report.folded} folded, {report.fused} fused, {report.remaining} remaining"
    )
