"""Pictures of benchmarks. Of whole models: latency by model and engine, and time against error. Of layers: their roofline.

    python bench/plots.py models.json FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

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
    """Dots: each engine's median over infold's, a line for each model: a ratio can be compared between models, a time cannot."""
    figure = Figure(figsize=(9, 1.4 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for name in names:
        found = [(y, r) for y, r in enumerate(rows) if name in r["engines"]]
        ratios = [r["engines"][name]["median_ms"] / r["engines"]["infold"]["median_ms"] for _, r in found]
        places = [y for y, _ in found]
        axes.scatter(ratios, places, s=42, color=colors[name], label=name, zorder=2, edgecolor="white", linewidth=0.5)
    axes.axvline(1, color=colors["infold"], linewidth=0.8)
    axes.hlines(range(len(rows)), 0, 1, transform=axes.get_yaxis_transform(), color="#dddddd", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(rows)), [f"{Path(r['model']).stem}  {r['engines']['infold']['median_ms']:.1f} ms" for r in rows])
    axes.invert_yaxis()
    _ratios(axes, f"median time over infold's at highest, beside the names in ms; {threads} thread(s); to the right is slower")
    axes.legend(fontsize=8, ncols=min(len(names), 5), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    return figure


def _errors(rows: Sequence[Mapping], names: Sequence[str], colors: Mapping[str, str], threads: int) -> Figure:
    """Time over infold's against the error, a dot for each model: left and low is better."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name in names:
        dots = [
            (own["median_ms"] / r["engines"]["infold"]["median_ms"], own["error"])
            for r in rows
            if (own := r["engines"].get(name)) and own["error"]
        ]
        if dots:
            axes.scatter(*np.array(dots).T, s=24, color=colors[name], label=name)
    axes.set_yscale("log")
    _ratios(axes, f"median time over infold's at highest ({threads} thread(s))")
    axes.set_ylabel("largest error against float64,\nrelative to the largest output")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _ratios(axes: Axes, label: str) -> None:
    """A logarithmic axis whose ticks are plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)


def roofline(rows: Sequence[Mapping], path: Path) -> None:
    """Write the layers of bench/kernels.py that multiply: GFLOP/s against operations per byte, under their roofs; .svg.

    An area tells a layer's time; those that take less than a ten thousandth of all are left out. Each has a roof of its own, since
    copies of its size are as fast as the cache that holds them; drawn are the lowest and the highest.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    least = sum(r["ms"] for r in rows) / 10000
    rows = [r for r in rows if r["gflop"] and r["ms"] >= least]
    kinds: dict[str, list[Mapping]] = defaultdict(list)
    for r in sorted(rows, key=lambda r: -r["ms"]):
        kinds[r["kind"]].append(r)
    for color, (kind, found) in zip(cycle((*OTHERS, *COLORS.values())), kinds.items()):
        dots = np.array([(r["gflop"] / r["gb"], 1e3 * r["gflop"] / r["ms"], 30 * r["ms"]) for r in found])
        axes.scatter(dots[:, 0], dots[:, 1], s=dots[:, 2] + 4, color=color, alpha=0.7, linewidth=0, label=kind)
    peak = max(1e3 * r["gflop"] / r["least_ms"] for r in rows)
    speeds = [1e3 * r["gb"] / r["least_ms"] for r in rows if r["bound"] == "memory"]
    ends = np.array(axes.get_xlim())
    ends[0] = min(r["gflop"] / r["gb"] for r in rows) / 2
    intensity = np.geomspace(*ends, 200)
    for speed in {min(speeds), max(speeds)} if speeds else {np.inf}:
        axes.plot(intensity, np.minimum(peak, speed * intensity), color="#555555", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte (input, weights and output, each once)", ylabel="GFLOP/s")
    legend = axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    for handle in legend.legend_handles:
        handle.set_sizes([24])
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):  # the same bytes for the same numbers
        figure.savefig(unfinished, format="svg", metadata={"Date": None})
    unfinished.replace(path)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text())["results"], Path(sys.argv[2]))
