"""How long a model takes to become ready, and how much memory: infold beside onnxruntime, every sample in a fresh process.

    python bench/startup.py --zoo build/zoo [NAME ...] [--threads 1] [--rounds 5]

For each engine a new process imports it, makes a session of the model (`cold`), runs it once, reads its own peak memory
(VmHWM of /proc/self/status: everything that was ever resident, the interpreter and NumPy included) and then makes further
sessions in the same process (`warm`). `kept` is infold with `SessionOptions.cache_dir`, where an earlier process has left its
session (of a model that changed in the last two seconds it has not). The engines take turns; the table has medians. The model's
file is read once beforehand, so that the disk is not measured, and Python's bytecode is kept, as in an installation. Prints
Markdown; Linux only.
"""
from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import selection

_CHILD = """
import json, sys, time
import numpy as np
engine, path, threads, warm = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
began = time.perf_counter()
if engine != "onnxruntime":
    import infold as package
    package.InferenceSession
else:
    import onnxruntime as package
imported = time.perf_counter()
options = package.SessionOptions()
options.intra_op_num_threads = threads

def make():
    began = time.perf_counter()
    session = package.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session, 1e3 * (time.perf_counter() - began)

session, cold = make()
feeds = {i.name: np.ones([d if isinstance(d, int) else 1 for d in i.shape], np.float32) for i in session.get_inputs()}
before = time.perf_counter()
session.run(None, feeds)
first = time.perf_counter()
peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
del session
times = [make()[1] for _ in range(warm)]
print(json.dumps({"import": 1e3 * (imported - began), "cold": cold, "first_run": 1e3 * (first - before), "peak_mb": peak,
                  "warm": sorted(times)[len(times) // 2] if times else None}))
"""
ENGINES = ("infold", "kept", "onnxruntime")


def sample(engine: str, path: Path, threads: int, warm: int, folder: str) -> dict:
    """One fresh process: milliseconds of import, cold and warm session creation and first run; peak memory in MiB.

    folder: where sessions are kept for the engine "kept".
    """
    command = [sys.executable, "-c", _CHILD, engine, str(path), str(threads), str(warm)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["INFOLD_CACHE_DIR"] = folder if engine == "kept" else ""
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def compare(path: Path, threads: int, rounds: int, warm: int) -> dict[str, dict[str, float]]:
    """Medians by engine over `rounds` rounds in which the engines take turns."""
    path.read_bytes()
    samples: dict[str, list[dict]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        sample("kept", path, threads, 0, folder)  # which also compiles what an editable installation has not
        for turn in range(rounds):
            for engine in ENGINES if turn % 2 == 0 else reversed(ENGINES):
                samples[engine].append(sample(engine, path, threads, warm, folder))
    return {engine: {key: statistics.median(s[key] for s in taken) for key in taken[0] if taken[0][key] is not None}
            for engine, taken in samples.items()}


def row(name: str, result: dict[str, dict[str, float]]) -> str:
    """A line of the table: all engines in each cell."""
    return f"| {name} | " + " | ".join(" / ".join(f"{result[e][k]:.0f}" for e in ENGINES) for k in result["infold"]) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = selection.parser(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm", type=int, default=3, help="further sessions made in each process")
    options = parser.parse_args(arguments)
    paths = [path for files in selection.models(options).values() for path in files.values()]
    head = None
    for path in paths:
        result = compare(path, options.threads, options.rounds, options.warm)
        if head is None:
            head = list(result["infold"])
            print(f"{options.threads} thread(s), {' / '.join(ENGINES)}, ms and MiB\n")
            print(f"| model | {' | '.join(head)} |\n|---|{'---|' * len(head)}")
        print(row(f"{path.parent.name}/{path.stem}", result), flush=True)


if __name__ == "__main__":
    main()
