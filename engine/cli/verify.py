"""`infold verify`: is infold's result right, and whose error is larger?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from infold.cli import common

if TYPE_CHECKING:
    from infold.report.verify import VerifyReport

LAYERS_SHOWN = 20


def verify(
    model: common.Model,
    inputs: common.Inputs = None,
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    batch: common.Batch = None,
    threads: common.Threads = 0,
    training_mode: common.TrainingMode = "error",
    layers: Annotated[bool, typer.Option("--layers", help="Compare every value inside the graph as well.")] = False,
    as_json: common.Json = False,
) -> None:
    """Compare infold with a float64 run and with onnxruntime; exit code 1 if infold's error is too large."""
    import infold
    from infold.cli import files

    with common.working(f"Verifying {model}"):
        loaded = files.load(model, shapes, weights, runs=True)
        report = infold.verify(
            loaded,
            files.read_given(loaded, inputs),
            batch=batch,
            shapes=files.parse_shapes(shapes),
            threads=threads,
            layers=layers,
            training_mode=training_mode,
        )
    common.answer(as_json, {"model": str(model), **report.to_dict()}, lambda: show(report))
    if not report.ok:
        raise typer.Exit(1)


def show(report: VerifyReport) -> None:
    """Print each output's errors and whose is larger, and where a wrong result begins."""
    from rich.text import Text

    console = common.out()
    table = common.table("output", numbers=("max abs", "max rel", "infold's error", "onnxruntime's error", "larger"))
    for output in report.outputs:
        numbers = map(_number, (output.max_abs, output.max_rel, output.error, output.onnxruntime_error))
        table.add_row(output.name, *numbers, _larger(output.error, output.onnxruntime_error))
    console.print(table)
    if report.layers is not None:
        _show_layers(report)
    for output in report.outputs:
        if output.note:
            console.print(f"{output.name}: {output.note}")
    console.print(f"errors: max|y - r| / max|r| against a float64 run r; onnxruntime: {report.onnxruntime}")
    where = f": the first node that diverges is {report.first_divergent}" if report.first_divergent else ""
    console.print(Text("ok", style="green") if report.ok else Text(f"not ok{where}", style="red"))


def _show_layers(report: VerifyReport) -> None:
    title = f"The {LAYERS_SHOWN} largest errors inside the graph"
    table = common.table("node", "operator", numbers=("infold's error", "onnxruntime's error", "larger"), title=title)
    for layer in sorted(report.layers, key=lambda layer: -layer.error)[:LAYERS_SHOWN]:
        errors = (layer.error, layer.onnxruntime_error)
        table.add_row(layer.node, layer.op_type, *map(_number, errors), _larger(*errors))
    common.out().print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2e}"


def _larger(own: float, peer: float | None) -> str:
    return "" if peer is None else "equal" if own == peer else "infold" if own > peer else "onnxruntime"
