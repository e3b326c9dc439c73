"""The running statistics of a model by layer, as a picture."""

from __future__ import annotations

import os

import numpy as np

from .doctor import DoctorReport, LayerStatistics
from .plot import empty_figure

LABEL = 24  # characters of a name, the last ones


def plot_statistics(report: DoctorReport, path: str | os.PathLike, title: str = "") -> None:
    """Draw mean and spread over the channels of the running mean and variance of every layer, and where findings are.

    The suffix of `path` names the format. Raises: MissingDependencyError without matplotlib.
    """
    figure = empty_figure(max(8, 0.1 * len(report.layers)), 6)
    above, below = figure.subplots(2, 1, sharex=True)
    places = {layer.name: place for place, layer in enumerate(report.layers)}
    for axes, what, label in ((above, "mean", "running mean"), (below, "var", "running variance")):
        centre, spread = (np.array([_number(layer, f"{kind}_of_{what}") for layer in report.layers]) for kind in ("mean", "std"))
        axes.errorbar(range(len(centre)), centre, spread, fmt="o", markersize=3, linewidth=1, color="#2a6f97")
        for severity, colour in (("warning", "#e9a227"), ("error", "#c1121f")):
            for place in sorted({places[finding.node] for finding in report.findings if finding.severity == severity}):
                axes.axvline(place, color=colour, linewidth=4, alpha=0.3, zorder=0)
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.3)
    below.set_yscale("symlog", linthresh=1e-3)
    below.set_xlabel("BatchNorm, in graph order (dot: mean over channels; line: ± standard deviation; shaded: warning, error)")
    if len(places) <= 60:
        labels = [name if len(name) <= LABEL else "…" + name[1 - LABEL :] for name in places]
        below.set_xticks(range(len(places)), labels, rotation=90, fontsize=6)
    above.set_title(title, fontsize=10)
    figure.savefig(path, dpi=150)


def _number(layer: LayerStatistics, name: str) -> float:
    value = getattr(layer, name)
    return np.nan if value is None or not np.isfinite(value) else value
