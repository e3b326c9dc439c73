"""Networks of many families in infold and onnxruntime: docs/coverage.md.

    python bench/survey.py check FOLDER [WORD ...]   # export, run, compare: a line of FOLDER/checks.jsonl for each
    python bench/survey.py time FOLDER [WORD ...]    # one thread, in turns with onnxruntime: FOLDER/times.jsonl
    python bench/survey.py table FOLDER              # the tables of docs/coverage.md

What has its line is not done again, so a run can be stopped and gone on with; WORDs choose networks whose `family/name`
contains one of them. Each network is exported by torch's TorchScript exporter with an open batch and run with a batch of 2,
and, if it is marked in `survey_networks.py`, by torch.export as well. Exports stay in FOLDER for `time` (`--delete`: they go
as soon as they are checked). Needs bench/requirements.txt, bench/requirements-nodeps.txt and the packages that
`survey_networks.py` names; without one of them its networks fail, which is told.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import survey_networks

import infold
from infold.reference import run_float64
from infold.report.bench import time_engines
from infold.report.deviation import deviation, trivial
from infold.report.engines import ENGINES
from infold.report.inputs import random_inputs

SECONDS = 600.0
LONGEST = 0.25  # seconds of onnxruntime's run: beyond them a float64 run takes too long
KINDS = {"ts": "TorchScript", "dynamo": "torch.export"}


def check(name: str, kind: str, path: Path) -> dict:
    """Export one network to `path`; compare infold, onnxruntime and, if affordable, a float64 run."""
    started = time.perf_counter()
    network, inputs = survey_networks.build(name)
    if not path.exists():
        export(network, inputs, path, kind)
    feeds = {f"input{i}" if i else "input": x.numpy() for i, x in enumerate(inputs)}
    facts: dict = {"mb": round(path.stat().st_size / 1e6, 1)}
    session = infold.InferenceSession(path, infold.SessionOptions(intra_op_num_threads=1))
    feeds = {name: feeds[name] for name in session.inputs}
    ours = session.run(None, feeds)
    report = session.report
    facts["fallbacks"] = dict(Counter(f"{f.op_type}: {f.reason}" for f in report.fallbacks))
    facts["batchnorms"] = report.fold.batchnorms
    facts["fused"] = report.fold.fused
    facts["kept"] = [[item.name, item.reason] for item in report.fold.items if item.verdict == "kept"]
    peer = ENGINES["onnxruntime"](str(path), feeds, 1)
    began = time.process_time()
    theirs = peer.run()
    affordable = time.process_time() - began < LONGEST
    facts["apart"] = max(map(deviation, ours, theirs))
    if affordable:
        exact = list(run_float64(infold.load(path), feeds).values())
        facts["trivial"] = any(map(trivial, exact))
        facts["error"], facts["onnxruntime_error"] = (max(map(deviation, ys, exact)) for ys in (ours, theirs))
    facts["seconds"] = round(time.perf_counter() - started, 1)
    return facts


def export(network, inputs: tuple, path: Path, kind: str) -> None:
    """Write the network to `path`, the first dimension of every input open."""
    import torch

    names = ["input", *(f"input{i}" for i in range(1, len(inputs)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unfinished = path.with_suffix(".unfinished")
        if kind == "dynamo":
            torch.onnx.export(network, inputs, unfinished, input_names=names, dynamo=True, external_data=False, verbose=False)
        else:
            axes = None if getattr(network, "fixed", False) else {name: {0: "batch"} for name in names}
            torch.onnx.export(network, inputs, unfinished, input_names=names, dynamo=False, opset_version=17, dynamic_axes=axes,
                              training=torch.onnx.TrainingMode.PRESERVE)  # else it folds BatchNorms itself
        unfinished.replace(path)


def measure(name: str, kind: str, path: Path) -> dict:
    """One thread, batch 1 where it is open, in turns with onnxruntime."""
    feeds = random_inputs(infold.load(path))
    names = ("infold", "onnxruntime")
    timings, failed = time_engines(dict.fromkeys(names, str(path)), feeds, None, threads=1, rounds=3, seconds=0.2)
    return {"failed": failed, **{name: timings[name].median_ms for name in timings}}


def alone(function: Callable, *arguments) -> dict:
    """The function's facts, computed in a process of its own; what went wrong is a fact as well."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        facts = receiver.recv() if receiver.poll(SECONDS) else {"failed": f"no answer after {SECONDS:.0f} s"}
    except EOFError:
        facts = {"failed": "the process died"}
    process.kill()
    process.join()
    return facts


def _answer(sender, function, arguments) -> None:
    try:
        sender.send(function(*arguments))
    except Exception as error:  # a survey tells of what fails, whatever it is
        refused = isinstance(error, infold.Error)
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        sender.send({"refused" if refused else "failed": f"{type(error).__name__}: {error}"[:500], "where": where})


def survey(folder: Path, words: list[str], file: str, function: Callable, todo: Iterable[tuple[str, str]], delete: bool) -> None:
    """Append the facts of each chosen network and exporter to FOLDER/file."""
    known = {(row["name"], row["kind"]) for row in read(folder / file)}
    for name, kind in todo:
        path = folder / f"{name.replace('/', '-')}.{kind}.onnx"
        if (name, kind) in known or (words and not any(word in name for word in words)):
            continue
        facts = alone(function, name, kind, path)
        with open(folder / file, "a") as out:
            print(json.dumps({"name": name, "kind": kind, **facts}), file=out)
        print(name, kind, facts, flush=True)
        if delete:
            path.unlink(missing_ok=True)


def read(path: Path) -> list[dict]:
    """The lines of a .jsonl file, none if it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(folder: Path) -> str:
    """Markdown: one line for each family."""
    times = {(row["name"], row["kind"]): row for row in read(folder / "times.jsonl") if not row.get("failed")}
    families = defaultdict(list)
    for row in read(folder / "checks.jsonl"):
        families[row["name"].partition("/")[0]].append(row)
    lines = [
        "| family | ran | refused | fallback operators | error over onnxruntime's: median, worst | BatchNorms: all, fused, left"
        " | onnxruntime's time over infold's: median, worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, rows in families.items():
        ran = [row for row in rows if "apart" in row]
        ratios = [_ratio(row) for row in ran if row.get("error") is not None]
        speeds = [(times[key]["onnxruntime"] / times[key]["infold"], row["name"].partition("/")[2])
                  for row in ran if (key := (row["name"], row["kind"])) in times]
        operators = Counter(reason.partition(":")[0] for row in ran for reason in row["fallbacks"])
        normed = [sum(row["batchnorms"] for row in ran), sum(row["fused"] for row in ran), sum(len(row["kept"]) for row in ran)]
        cells = [
            family, len(ran), sum("refused" in row for row in rows) or "–", ", ".join(operators) or "–",
            f"{statistics.median(ratios):.2f}, {max(ratios):.2f}" if ratios else "–", ", ".join(map(str, normed)),
            "–" if not speeds else f"{statistics.median(s for s, _ in speeds):.2f}, {min(speeds)[0]:.2f} ({min(speeds)[1]})",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |".replace("_", " ", family.count("_")))
    speeds = [row["onnxruntime"] / row["infold"] for row in times.values()]
    if speeds:
        mean = math.exp(statistics.fmean(map(math.log, speeds)))
        lines += ["", f"{len(speeds)} exports timed: geometric mean {mean:.2f}, worst {min(speeds):.2f}."]
    return "\n".join(lines)


def _ratio(row: dict) -> float:
    """infold's error over onnxruntime's; 1 where both are exact."""
    return row["error"] / row["onnxruntime_error"] if row["onnxruntime_error"] else 1.0 + row["error"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "time", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--delete", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.what == "table":
        print(table(arguments.folder))
    elif arguments.what == "check":
        survey_networks.preload()
        survey(arguments.folder, arguments.words, "checks.jsonl", check, survey_networks.names(), arguments.delete)
    else:
        ran = [(row["name"], row["kind"]) for row in read(arguments.folder / "checks.jsonl") if "apart" in row]
        survey(arguments.folder, arguments.words, "times.jsonl", measure, ran, arguments.delete)


if __name__ == "__main__":
    main()
