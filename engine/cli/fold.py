"""`infold fold`: write a model with its BatchNorms folded away, and say of each where it went."""

from __future__ import annotations

import json
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
        bool, typer.Option("--explain", help="For every BN, the rule that took it, or the condition that stopped it.")
    ] = False,
    training_mode: common.TrainingMode = "batch",
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    preprocess: common.Preprocessing = None,
    as_json: common.Json = False,
) -> None:
    """Fold a model's BatchNorms into their neighbours; the result is plain ONNX for any runtime."""
    import infold
    from infold.cli import files
    from infold.files import write
    from infold.passes import training
    from infold.preprocess.graph import embed
    from infold.report.explain import explanations
    from infold.report.fused import planned

    with common.working(f"Folding {model}"):
        loaded, declared = training.resolve(files.load(model, shapes, weights), training_mode), files.preprocessing(preprocess)
        if declared is not None:
            loaded = embed(loaded, declared)
        folded, report = infold.fold(loaded)
        report = planned(folded, report)
        stories = explanations(loaded, report) if explain else None
        rest = output.with_suffix(".preprocess.json") if output is not None and declared is not None else None
        if rest is not None:
            files.refuse_overwriting(rest, source=preprocess, what="declared preprocessing")
        if output is not None:
            files.write_model(folded, output, source=model)
        if rest is not None:
            write(rest, lambda made: made.write_text(json.dumps(declared.rest.to_dict(), indent=2) + "\n"))
    if as_json:
        document = {"model": str(model), "written": output, "preprocess": rest, **report.to_dict()}
        for item in document["items"] if stories else ():
            item["explanation"] = stories[item["name"]]
        common.print_json(document)
    else:
        show(report, stories)
        if report.fused:
            common.out().print("fused: a node of the ONNX model still, but no pass of its own in infold's session")
        common.out().print(
            f"written to {output}" if output else "nothing written: give --output FILE to keep the folded model"
        )
        if rest is not None:
            common.out().print(f"it takes pixels; what is left to do to pictures is in {rest}")


def show(report: FoldReport, stories: dict[str, str] | None) -> None:
    """Print the table of every BN with its verdict (and how it came to it, where `stories` tells), and the count."""
    from rich.text import Text

    table = common.table("BatchNorm", "verdict", "into", *(["why"] if stories else []))
    colours = {"folded": "green", "fused": "cyan", "kept": "yellow"}
    for item in report.items:
        why = [stories[item.name]] if stories else []
        verdict = Text(item.verdict, style=colours[item.verdict])
        table.add_row(item.name, verdict, item.into or ("" if stories else item.reason) or "", *why)
    if report.items:
        common.out().print(table)
    common.out().print(
        f"{report.batchnorms} BatchNorms: {report.folded} folded, {report.fused} fused, {report.remaining} remaining"
    )
