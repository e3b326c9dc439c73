"""The two tables that both halves of the demo print."""
from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from infold.report.fold import FoldReport


def fold_report(console: Console, model: str, report: FoldReport) -> None:
    """Where each BatchNorm went, or why it stayed."""
    console.print(f"{model}: {report.batchnorms} BatchNorms, {report.folded} folded, {report.fused} fused, "
                  f"{report.remaining} left", soft_wrap=True)
    table = Table("BatchNorm", "verdict", "into or why not")
    for item in report.items:
        table.add_row(*(escape(text or "") for text in (item.name, item.verdict, item.into or item.reason)))
    console.print(table)


def times(console: Console, how: str, rows: dict[str, dict[str, float]]) -> None:
    """Milliseconds per engine, {row: {engine: ms}}, and how many times infold's go into onnxruntime's."""
    console.print(how, soft_wrap=True)
    table = Table("", "infold", "onnxruntime", "onnxruntime / infold")
    for name, ms in rows.items():
        table.add_row(name, f"{ms['infold']:.3f} ms", f"{ms['onnxruntime']:.3f} ms",
                      f"{ms['onnxruntime'] / ms['infold']:.2f}")
    console.print(table)
