"""Whole models in infold and its peers: writes models.json, models.md (the tables of docs/performance.md) and pictures.

    python bench/models.py --zoo FOLDER --output FOLDER [NAME ...] [--threads 1 --threads 2] [MODEL.onnx ...] [--engine NAME ...]
        [--batch 16] [--size 384]

FOLDER/raw and FOLDER/opt hold exports of the same networks (bench/zoo.py makes them). Every engine is timed on both,
all in one interleaved run, and counts with the better of the two. A path to an .onnx file is a model of its own. The
engines at float32 compete with infold at `highest`; those at other precisions (`NAME@WAY`) have a table of their own.
With --batch or --size, copies of the files declare inputs of so many pictures, so high and wide; what else a file fixes stays, so
batches want a zoo whose batch is open (`bench/zoo.py --dynamic`).
"""

from __future__ import annotations

import datetime
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import inductor  # noqa: F401  (registers the engine)
import plots
import selection

import infold
from infold import host
from infold.cli.common import progress
from infold.cli.files import parse_shapes
from infold.reference import run_float64
from infold.report import engines
from infold.report.bench import Timing, ratio_interval, time_engines
from infold.report.inputs import random_inputs
from infold.report.machine import cpu_name


def compare(
    name: str,
    files: Mapping[str, Path],
    *,
    threads: int,
    rounds: int,
    seconds: float,
    shapes: Mapping[str, Sequence[int]],
    accuracy: bool,
    names: Sequence[str],
) -> dict:
    """Time every engine on every variant of a model; each engine's better variant decides."""
    models = {kind: infold.load(path) for kind, path in files.items()}
    feeds = random_inputs(next(iter(models.values())), shapes)
    exact = {kind: list(run_float64(model, feeds).values()) for kind, model in models.items()} if accuracy else None
    del models
    paths = {f"{engine}-{kind}": os.fspath(path) for engine in names for kind, path in files.items()}
    references = None if exact is None else {entry: exact[entry.rpartition("-")[2]] for entry in paths}
    image = max((list(array.shape) for array in feeds.values()), key=len)
    with progress(f"{name}, {threads} thread(s)") as advance:
        timings, failed = time_engines(
            paths, feeds, references, threads=threads, rounds=rounds, seconds=seconds, progress=advance
        )
    best: dict[str, str] = {}
    for entry in sorted(timings, key=lambda entry: timings[entry].median_ms):
        best.setdefault(entry.rpartition("-")[0], entry)
    peer = _best_peer(best, timings)
    return {
        "model": name,
        "threads": threads,
        "input": "x".join(map(str, image)),
        "entries": {entry: timing.to_dict() for entry, timing in timings.items()},
        "engines": {
            engine: {"variant": entry.rpartition("-")[2], **timings[entry].to_dict()} for engine, entry in best.items()
        },
        "best_peer": peer,
        "levels": _levels(best, timings, peer),
        "failed": failed,
    }


def _best_peer(best: Mapping[str, str], timings: Mapping[str, Timing]) -> dict | None:
    """The fastest peer, its median over infold's, and the interval of that."""
    peers = [engine for engine in best if engine != "infold" and "@" not in engine]
    return _versus(peers[0], "infold", best, timings) if peers else None  # `best` is in order of time


def _versus(peer: str, own: str, best: Mapping[str, str], timings: Mapping[str, Timing]) -> dict:
    theirs, ours = timings[best[peer]], timings[best[own]]
    interval = ratio_interval(theirs.rounds, ours.rounds)
    return {"name": peer, "ratio": theirs.median_ms / ours.median_ms, "ratio_ci95": list(interval)}


def _levels(best: Mapping[str, str], timings: Mapping[str, Timing], peer: dict | None) -> dict[str, dict]:
    """infold at its other levels: `high` against the fastest float32 peer, `medium` against OpenVINO's bfloat16."""
    rivals = {"infold@high": peer and peer["name"], "infold@medium": "openvino@bf16"}
    return {own: _versus(rival, own, best, timings) for own, rival in rivals.items() if own in best and rival in best}


def markdown(results: Sequence[Mapping], facts: Mapping) -> str:
    """The results as tables for each thread count, with the geometric mean and the worst of the ratios."""
    every = sorted(facts["versions"], key=lambda name: (not name.startswith("infold"), name))
    names = [name for name in every if "@" not in name]
    lines = [f"{facts['cpu']}, infold {facts['versions']['infold']} on {facts['isa']}, {facts['date']}.", ""]
    for threads in sorted({result["threads"] for result in results}):
        rows = [result for result in results if result["threads"] == threads]
        heads = [f"{name} {facts['versions'][name]}" for name in names]
        lines += [
            f"{_inputs(rows)}, {threads} thread(s): median milliseconds (error against float64), each engine on the export "
            "that suits it better; last, the fastest peer's median over infold's with its 95 % interval.",
            "",
            f"| model | {' | '.join(heads)} | fastest peer / infold |",
            "|---|" + "---|" * (len(names) + 1),
        ]
        lines += [_row(result, names) for result in rows]
        lines += ["", _summary([result["best_peer"] for result in rows]), ""]
        if any(result["levels"] for result in rows):
            lines += _level_table(rows, [name for name in every if "@" in name])
    return "\n".join([*lines, *_scaling(results)])


def _inputs(rows: Sequence[Mapping]) -> str:
    return "Input " + ", ".join(sorted({row["input"] for row in rows}))


def _summary(ratios: Sequence[Mapping | None]) -> str:
    ratios = [found["ratio"] for found in ratios if found]
    mean = math.exp(sum(map(math.log, ratios)) / max(len(ratios), 1))
    return f"Geometric mean {mean:.2f}, worst {min(ratios, default=1):.2f}, over {len(ratios)} models."


def _level_table(rows: Sequence[Mapping], names: Sequence[str]) -> list[str]:
    columns = {
        "infold@high": "fastest float32 peer / infold@high",
        "infold@medium": "openvino@bf16 / infold@medium",
    }
    lines = [f"| model | {' | '.join([*names, *columns.values()])} |", "|---|" + "---|" * (len(names) + len(columns))]
    for result in rows:
        cells = [_time(result, name) for name in names] + [_ratio(result["levels"].get(own)) for own in columns]
        lines.append(f"| {Path(result['model']).stem} | {' | '.join(cells)} |")
    summaries = [f"{title}: {_summary([r['levels'].get(own) for r in rows])}" for own, title in columns.items()]
    return [*lines, "", *summaries, ""]


def _scaling(results: Sequence[Mapping]) -> list[str]:
    """How much faster infold is on each thread count than on one."""
    times = {(r["model"], r["threads"]): r["engines"]["infold"]["median_ms"] for r in results}
    lines = []
    for threads in sorted({count for _, count in times} - {1}):
        gains = [f"{Path(m).stem} {times[m, 1] / ms:.2f}" for (m, n), ms in times.items() if n == threads and (m, 1) in times]
        lines += [f"infold on {threads} threads against one: {', '.join(gains)}.", ""] if gains else []
    return lines


def _row(result: Mapping, names: Sequence[str]) -> str:
    cells = [*(_time(result, name) for name in names), _ratio(result["best_peer"])]
    return f"| {Path(result['model']).stem} | {' | '.join(cells)} |"


def _time(result: Mapping, name: str) -> str:
    facts = result["engines"].get(name)
    error = "" if facts is None or facts["error"] is None else f" ({facts['error']:.1e})"
    return "–" if facts is None else f"{facts['median_ms']:.2f}{error}"


def _ratio(found: Mapping | None) -> str:
    if not found:
        return "–"
    low, high = found["ratio_ci95"]
    return f"{found['ratio']:.2f} ({low:.2f}–{high:.2f}, {found['name']})"


def resized(path: Path, batch: int | None, size: int | None, folder: Path) -> Path:
    """A copy of a model, in `folder`, whose images (inputs of four dimensions) are `batch` pictures of `size` x `size` pixels; None
    leaves what is declared. Shapes inside are forgotten."""
    import onnx

    model, copy = onnx.load(path), folder / path.parent.name / path.name
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for at, wanted in zip(range(4), (batch, None, size, size)):
            if len(dims) == 4 and wanted is not None:
                dims[at].dim_value = wanted
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    copy.parent.mkdir(exist_ok=True)
    onnx.save(model, copy)
    return copy


def write(results: Sequence[Mapping], output: Path) -> None:
    """Write models.json, models.md and the pictures, each whole or not at all."""
    versions = {name: facts["version"] for result in results for name, facts in result["engines"].items()}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    facts = {"cpu": cpu_name(), "isa": host.isa(), "date": today, "versions": versions}
    document = json.dumps({**facts, "results": list(results)}, indent=2)
    output.mkdir(parents=True, exist_ok=True)
    for name, text in (("models.json", document + "\n"), ("models.md", markdown(results, facts))):
        unfinished = output / f".{name}.{os.getpid()}"
        unfinished.write_text(text)
        unfinished.replace(output / name)
    plots.draw(results, output)


def main() -> None:
    parser = selection.parser("Time whole models in infold and its peers.")
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--threads", type=int, action="append", help="may be repeated; default 1")
    parser.add_argument("--engine", action="append", help="may be repeated; default all that are installed, at every precision")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each engine and variant in each round")
    parser.add_argument("--shape", action="append", metavar="NAME=1x3x224x224", help="for models that leave it open")
    parser.add_argument("--batch", type=int, help="pictures of an input, where the files leave that open")
    parser.add_argument("--size", type=int, help="height and width of the pictures")
    parser.add_argument("--no-accuracy", dest="accuracy", action="store_false")
    arguments = parser.parse_args()
    chosen = list(dict.fromkeys(["infold", *(arguments.engine or engines.installed(every=True))]))
    if unknown := set(chosen) - set(engines.ENGINES):
        parser.error(f"no engine {', '.join(sorted(unknown))}; known: {', '.join(engines.ENGINES)}")
    results, settings = [], {key: getattr(arguments, key) for key in ("rounds", "seconds", "accuracy")}
    for threads in arguments.threads or [1]:
        for name, files in selection.models(arguments).items():
            with tempfile.TemporaryDirectory(prefix="infold-bench-") as folder:
                if arguments.batch or arguments.size:
                    files = {kind: resized(path, arguments.batch, arguments.size, Path(folder)) for kind, path in files.items()}
                result = compare(name, files, threads=threads, shapes=parse_shapes(arguments.shape), names=chosen, **settings)
            results.append(result)
            write(results, arguments.output)
            print(f"{threads} thread(s) {_row(result, [name for name in chosen if '@' not in name])}", flush=True)


if __name__ == "__main__":
    main()
