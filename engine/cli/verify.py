"""`infold verify`: is infold's result right, and whose error is larger?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from infold.cli import common

if TYPE_CHECKING:
    from infold.report.verify import VerifyReport


def verify(
    model: common.Model,
    inputs: common.Inputs = None,
    shapes: common.Shapes = None,
    threads: common.Threads = 0,
    as_json: common.Json = False,
) -> None:
    """Compare infold with a float64 run and with onnxruntime; exit code 1 if infold's error is too large."""
    import infold
    from infold.cli import files

    with common.working(f"Verifying {model}"):
        loaded = infold.load(model)
        feeds = files.read_inputs(loaded, inputs, files.parse_shapes(shapes))
        report = infold.verify(loaded, feeds, threads=threads)
    if as_json:
        common.print_json({"model": str(model), **report.to_dict()})
    else:
        show(report)
    if not report.ok:
        raise typer.Exit(1)


def show(report: VerifyReport) -> None:
    """Print each output's errors and whose is larger, and where a wrong result begins."""
    from rich.table import Table
    from rich.text import Text

    table = Table("output")
    for column in ("max abs", "max rel", "infold's error", "onnxruntime's error", "larger"):
        table.add_column(column, justify="right")
    for output in report.to_dict()["outputs"]:
        own, peer = output["error"], output["onnxruntime_error"]
        larger = "" if peer is None else "equal" if own == peer else "infold" if own > peer else "onnxruntime"
        numbers = [
            "" if value is None else f"{value:.2e}" for value in (output["max_abs"], output["max_rel"], own, peer)
        ]
        table.add_row(output["name"], *numbers, larger)
    console = common.out()
    console.print(table)
    if report.ok:
        console.print(Text("ok", style="green"))
    else:
        where = f": the first node that diverges is {report.first_divergent}" if report.first_divergent else ""
        console.print(Text(f"not ok{where}", style="red"))
