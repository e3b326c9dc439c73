"""Pictures of a benchmark of whole models: latency by model and engine, and time against error.

    python bench/plots.py models.json FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

COLORS = {"infold": "#1f6f8b", "infold@high": "#4fa3bf", "infold@medium": "#9fd0e0"}
OTHERS = ("#c8553d", "#e09f3e", "#6a994e", "#7d5ba6", "#8d99ae", "#b56576", "#3d405b", "#bc6c25")


def draw(results: Sequence[Mapping], output: Path) -> None:
    """Write latency-THREADS.svg and error-THREADS.svg for every thread count into `output`."""
    names = sorted({name for r in results for name in r["engines"]}, key=lambda name: (not name.startswith("infold"), name))
    others = [name for name in names if name not in COLORS]
    colors = {**COLORS, **{name: OTHERS[i % len(OTHERS)] for i, name in enumerate(others)}}
    for threads in sorted({r["threads"] for r in results}):
        rows = [r for r in results if r["threads"] == threads]
        _save(_latency(rows, names, colors, threads), output / f"latency-{threads}.svg")
        if any(facts["error"] for r in rows for facts in r["engines"].values()):
            _save(_errors(rows, names, colors, threads), output / f"error-{threads}.svg")


def _latency(rows: Sequence[Mapping], names: Sequence[str], colors: Mapping[str, str], threads: int) -> Figure:
    """Bars of each engine's median over infold's, by model: a ratio can be compared between models, a time cannot."""
    figure = Figure(figsize=(10, 1 + 0.17 * len(rows) * len(names)), layout="constrained")
    axes, height = figure.subplots(), 0.85 / len(names)
    for i, name in enumerate(names):
        found = [(y, r) for y, r in enumerate(rows) if name in r["engines"]]
        ratios = [r["engines"][name]["median_ms"] / r["engines"]["infold"]["median_ms"] for _, r in found]
        places = [y + (i - len(names) / 2 + 0.5) * height for y, _ in found]
        bars = axes.barh(places, ratios, height, color=colors[name], label=name)
        axes.bar_label(bars, [f"{r['engines'][name]['median_ms']:.2f} ms" for _, r in found], padding=3, fontsize=6)
    axes.axvline(1, color="#777777", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [Path(r["model"]).stem for r in rows])
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel(f"median time over infold's at highest (log), batch 1, {threads} thread(s); beyond the line: slower")
    axes.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.08))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _errors(rows: Sequence[Mapping], names: Sequence[str], colors: Mapping[str, str], threads: int) -> Figure:
    """Time over infold's against error over onnxruntime's, a dot for each model: left and low is better."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name in names:
        dots = [
            (own["median_ms"] / r["engines"]["infold"]["median_ms"], own["error"])
            for r in rows
            if (own := r["engines"].get(name)) and own["error"]
        ]
        if dots:
            axes.scatter(*np.array(dots).T, s=18, color=colors[name], label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(f"median time over infold's at highest ({threads} thread(s))")
    axes.set_ylabel("largest error against float64, relative to the largest output")
    axes.legend(fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _save(figure: Figure, path: Path) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    figure.savefig(unfinished, format="svg")
    unfinished.replace(path)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text())["results"], Path(sys.argv[2]))
