"""Timing infold beside its peers: interleaved rounds in one process, medians, and the accuracy beside every time."""

from __future__ import annotations

import gc
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infold.errors import InvalidInputError, MissingDependencyError
from infold.report import engines as registry
from infold.report.deviation import deviation, same_pattern
from infold.report.engines import Prepared

if TYPE_CHECKING:
    import onnx_ir as ir

FOLDED = "-folded"  # the suffix that names a peer running the model infold folded


@dataclass(frozen=True)
class Timing:
    """One engine's times. `rounds[i]` holds the runs of round i in milliseconds."""

    rounds: list[np.ndarray]
    precision: str
    version: str
    error: float | None  # max|y - r| / max|r| over all outputs against a float64 run r; None if not asked for

    @property
    def median_ms(self) -> float:
        return float(np.median(np.concatenate(self.rounds)))

    def to_dict(self) -> dict:
        times = np.concatenate(self.rounds)
        p10, p90, p99 = (float(value) for value in np.percentile(times, (10, 90, 99)))
        return {
            "median_ms": self.median_ms,
            "p10_ms": p10,
            "p90_ms": p90,
            "p99_ms": p99,
            "min_ms": float(times.min()),
            "runs": times.size,
            "precision": self.precision,
            "version": self.version,
            "error": self.error,
        }


@dataclass(frozen=True)
class BenchReport:
    """What a benchmark found: times by engine, and how they relate to infold's."""

    model: str
    threads: int
    batch: int | None
    shapes: dict[str, list[int]]
    engines: dict[str, Timing]
    cpu: str
    isa: str
    failed: dict[str, str] = field(default_factory=dict)  # engine -> why it could not run this model

    @property
    def ratio(self) -> dict[str, float]:
        """Each peer's median over infold's: above 1 infold is faster."""
        own = self.engines["infold"].median_ms
        return {name: timing.median_ms / own for name, timing in self.engines.items() if name != "infold"}

    @property
    def interval(self) -> dict[str, tuple[float, float]]:
        """The 95 % bootstrap interval of each ratio, resampling whole rounds."""
        own = self.engines["infold"].rounds
        return {name: ratio_interval(timing.rounds, own) for name, timing in self.engines.items() if name != "infold"}

    def to_dict(self) -> dict:
        return {
            "model": self.model,
            "threads": self.threads,
            "batch": self.batch,
            "shapes": self.shapes,
            "engines": {name: timing.to_dict() for name, timing in self.engines.items()},
            "ratio": self.ratio,
            "ratio_ci95": {name: list(pair) for name, pair in self.interval.items()},
            "failed": self.failed,
            "cpu": self.cpu,
            "isa": self.isa,
        }


def bench(
    model: str | os.PathLike | ir.Model,
    *,
    name: str | None = None,
    threads: int = 1,
    batch: int | None = None,
    rounds: int = 10,
    seconds: float = 0.3,
    engines: Sequence[str] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    accuracy: bool = True,
    peers_folded: bool = False,
    training_mode: str = "error",
    progress: Callable[[int, int], None] | None = None,
) -> BenchReport:
    """Time one model in infold and in every other installed engine, on the same random inputs.

    Args:
        model: anything `infold.load` takes. The engines read what is no .onnx file as infold converts it.
        name: what the report calls the model; default its path.
        threads: threads given to each engine, at least 1.
        batch: first dimension of the inputs, where the model leaves it open.
        rounds, seconds: each engine is timed for about `seconds` in each of `rounds` rounds, a quiet pause before each.
        engines: names from `infold.report.engines.ENGINES`; default all that are installed. infold always takes part.
        shapes: input shapes by name, where the model leaves them open.
        accuracy: measure each engine's error against a float64 run (slow for large models).
        peers_folded: also time each peer on the model as folded by infold.
        training_mode: see `infold.SessionOptions`; with "running" every engine times the model so changed.
        progress: called with (engine turns done, turns in all).
    Raises:
        InvalidInputError: `threads`, `rounds`, an engine's name or the shapes make no sense.
        MissingDependencyError: an engine asked for by name is not installed.
        infold.Error: infold cannot run the model. A peer that cannot is listed under `failed`.
    """
    import infold
    from infold import host
    from infold.importers import format_of
    from infold.passes import training
    from infold.reference import run_float64
    from infold.report.inputs import random_inputs
    from infold.report.machine import cpu_name

    if threads < 1 or rounds < 1:
        raise InvalidInputError("threads and rounds are at least 1")
    names = _select(engines)
    given = format_of(model) == "onnx" and isinstance(model, (str, os.PathLike))
    original = infold.load(model)
    loaded = training.resolve(original, training_mode)
    feeds = random_inputs(loaded, shapes, batch)
    reference = list(run_float64(loaded, feeds).values()) if accuracy else None
    with tempfile.TemporaryDirectory(prefix="infold-bench-") as folder:
        path = os.fspath(model) if given and loaded is original else write_model(loaded, Path(folder) / "model.onnx")
        paths = dict.fromkeys(names, path)
        if peers_folded:
            folded = write_folded(loaded, Path(folder) / "folded.onnx")
            paths |= {name + FOLDED: folded for name in names if name != "infold"}
        references = None if reference is None else dict.fromkeys(paths, reference)
        timings, failed = time_engines(
            paths, feeds, references, threads=threads, rounds=rounds, seconds=seconds, progress=progress
        )
    dims = {name: list(array.shape) for name, array in feeds.items()}
    first = next(iter(dims.values()), [])
    name = name or (os.fspath(model) if isinstance(model, (str, os.PathLike)) else original.graph.name or "model")
    return BenchReport(
        name, threads, first[0] if first else None, dims, timings, cpu_name(), host.isa(), failed
    )


def _select(names: Sequence[str] | None) -> list[str]:
    available = registry.installed()
    for name in names or []:
        if name not in registry.ENGINES:
            raise InvalidInputError(f"no engine is called {name!r}; known: {', '.join(registry.ENGINES)}")
        if name not in available:
            raise MissingDependencyError(f"the engine {name} is not installed: pip install 'infold[bench]'")
    return ["infold", *(name for name in (names or available) if name != "infold")]


def write_folded(model, path: Path) -> str:
    """Fold `model` and write it to `path`; returns the path."""
    import infold

    return write_model(infold.fold(model)[0], path)


def write_model(model, path: Path) -> str:
    """Write `model` to `path`; returns the path."""
    import onnx_ir as ir

    ir.save(model, path)
    return os.fspath(path)


def time_engines(
    paths: Mapping[str, str],
    feeds: Mapping[str, np.ndarray],
    references: Mapping[str, Sequence[np.ndarray]] | None,
    *,
    threads: int,
    rounds: int,
    seconds: float,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Time several preparations of a model in one run: names and failures as for `prepare`, turns as for `measure`.

    references: by name, the exact outputs to measure the error against.
    """
    prepared, failed = prepare(paths, feeds, threads)
    times = measure(prepared, rounds=rounds, seconds=seconds, threads=threads, progress=progress)
    timings = {}
    for name, ready in prepared.items():
        error = None if references is None else worst_error(ready.run(), references[name])
        timings[name] = Timing(times[name], ready.precision, ready.version, error)
    return timings, failed


def prepare(
    paths: Mapping[str, str], feeds: Mapping[str, np.ndarray], threads: int
) -> tuple[dict[str, Prepared], dict[str, str]]:
    """Prepare each engine on its path and run it once; those that cannot are returned with the reason.

    The name of an entry begins with its engine's name, up to the first `-`. infold's own failure is raised.
    """
    ready, failed = {}, {}
    for name, path in paths.items():
        kind = name.split("-")[0]
        try:
            prepared = registry.ENGINES[kind](path, feeds, threads)
            prepared.run()
        except Exception as error:  # a peer may raise anything: what it cannot run is a finding, not our failure
            if kind == "infold":
                raise
            failed[name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        else:
            ready[name] = prepared
    return ready, failed


def measure(
    prepared: Mapping[str, Prepared],
    *,
    rounds: int,
    seconds: float,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[np.ndarray]]:
    """Milliseconds of every run, by name and round.

    In each round every engine has one turn, in an order that rotates: a quiet pause, in which the previous engine's
    threads stop spinning, an untimed warm-up of a fifth of its time, then timed runs for `seconds`, at least three.
    """
    pause = 0.02 if threads == 1 else 0.25
    names, times = list(prepared), {name: [] for name in prepared}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds * len(names)):
            lap, place = divmod(turn, len(names))
            name = names[(lap + place) % len(names)]
            if place == 0:
                gc.collect()
            time.sleep(pause)
            _runs(prepared[name].run, seconds / 5, 1)
            times[name].append(_runs(prepared[name].run, seconds, 3))
            if progress is not None:
                progress(turn + 1, rounds * len(names))
    finally:
        if collecting:
            gc.enable()
    return times


def _runs(run: Callable[[], object], seconds: float, least: int) -> np.ndarray:
    times, start = [], time.perf_counter_ns()
    while len(times) < least or time.perf_counter_ns() - start < seconds * 1e9:
        before = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - before) / 1e6)
    return np.array(times)


def ratio_interval(peer: Sequence[np.ndarray], own: Sequence[np.ndarray], resamples: int = 2000) -> tuple[float, float]:
    """The 95 % bootstrap interval of median(peer) / median(own), from the medians of paired rounds."""
    pairs = np.array([[np.median(theirs), np.median(ours)] for theirs, ours in zip(peer, own, strict=True)])
    picks = np.random.default_rng(0).integers(0, len(pairs), (resamples, len(pairs)))
    medians = np.median(pairs[picks], axis=1)
    low, high = np.percentile(medians[:, 0] / medians[:, 1], (2.5, 97.5))
    return float(low), float(high)


def worst_error(outputs: Sequence[object], reference: Sequence[object]) -> float:
    """The largest deviation over the outputs; infinite where NaNs or infinities are not where they should be."""
    pairs = list(zip(outputs, reference, strict=True))
    return max((deviation(y, r) if same_pattern(y, r) else math.inf for y, r in pairs), default=0.0)
