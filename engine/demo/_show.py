"""What both halves of the demo share: tables, interleaved timing, and the thread count given to every engine."""
from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from infold.report.fold import FoldReport


def threads() -> int:
    """The CPUs this process may use: infold and onnxruntime both get as many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fold_report(console: Console, model: str, report: FoldReport) -> None:
    """Where each BatchNorm went, or why it stayed."""
    console.print(f"{model}: {report.batchnorms} BatchNorms, {report.folded} folded, {report.fused} fused, "
                  f"{report.remaining} left", soft_wrap=True)
    table = Table("BatchNorm", "verdict", "into", "reason")
    for item in report.items:
        table.add_row(*(escape(text or "") for text in (item.name, item.verdict, item.into, item.reason)))
    console.print(table)


def times(console: Console, how: str, rows: dict[str, dict[str, float]]) -> None:
    """Milliseconds per engine, {row: {engine: ms}}, and how many times infold's go into onnxruntime's."""
    console.print(how, soft_wrap=True)
    table = Table("", "infold", "onnxruntime", "onnxruntime / infold")
    for name, ms in rows.items():
        table.add_row(name, f"{ms['infold']:.3f} ms", f"{ms['onnxruntime']:.3f} ms",
                      f"{ms['onnxruntime'] / ms['infold']:.2f}")
    console.print(table)


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call; they take turns, so what disturbs the machine disturbs all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()                                                                      # plans, packs, warms the caches
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
