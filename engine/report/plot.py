"""Pictures of benchmarks, drawn by matplotlib."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from infold.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from infold.report.bench import BenchReport


def empty_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches. Raises: MissingDependencyError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("a plot needs matplotlib: pip install 'infold[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def plot_bench(report: BenchReport, path: str | os.PathLike) -> None:
    """Draw each engine's times (median, percentiles, rounds) and error; the suffix of `path` names the format.

    Raises: MissingDependencyError without matplotlib.
    """
    names = list(report.engines)
    figure = empty_figure(8, 1.2 + 0.7 * len(names))
    axes = figure.subplots()
    for row, name in enumerate(names):
        timing = report.engines[name]
        facts = timing.to_dict()
        axes.barh(row, facts["median_ms"], height=0.6, color="#2a6f97" if name == "infold" else "#a9b4c2")
        axes.hlines(row, facts["p10_ms"], facts["p90_ms"], color="#1b1b1b", linewidth=1.5)
        medians = [np.median(times) for times in timing.rounds]
        axes.plot(medians, np.full(len(medians), row), ".", color="#1b1b1b", markersize=3)
        ratio = "" if name == "infold" else f", {report.ratio[name]:.2f}× infold's"
        error = "" if timing.error is None else f", error {timing.error:.1e}"
        axes.annotate(
            f"{facts['median_ms']:.3f} ms{ratio}{error}",
            (facts["p90_ms"], row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.6 * max(timing.to_dict()["p90_ms"] for timing in report.engines.values()))
    axes.set_xlabel("milliseconds (bar: median; line: 10th to 90th percentile; dots: rounds)")
    title = f"{os.path.basename(report.model)}, batch {report.batch}, {report.threads} thread(s)"
    axes.set_title(f"{title}\n{report.cpu}, {report.isa}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
