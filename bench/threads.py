"""What threads cost and give: the price of handing out work, and each model's time on one thread against several.

    python bench/threads.py --zoo build/zoo [NAME ...] [--threads 2]

First the microseconds of an empty parallel step. Then, for each model (optimised export), milliseconds on one thread and on
several, taken in turn, and the steps that lose most: their time on several threads beyond a perfect division.
"""
from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import selection

import infold
from infold import _native


def compare(path: Path, threads: int, rounds: int) -> tuple[float, float, list[tuple[str, str, float, float]]]:
    """Milliseconds on one thread and on several, and (node, operation, ms on one, ms on several) of each step, worst first."""
    sessions = [infold.InferenceSession(path, infold.SessionOptions(intra_op_num_threads=n)) for n in (1, threads)]
    rng = np.random.default_rng(0)
    shapes = {i.name: [d if isinstance(d, int) else 1 for d in i.shape] for i in sessions[0].get_inputs()}
    feeds = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    profiles: list[list] = [[], []]
    for _ in range(rounds):
        for session, taken in zip(sessions, profiles):
            taken.append(session.profile(feeds, runs=3))
    steps = []
    for one, several in zip(*(list(zip(*taken)) for taken in profiles)):
        ms = [statistics.median(record.ms for record in records) for records in (one, several)]
        steps.append((one[0].name, one[0].kernel, *ms))
    steps.sort(key=lambda s: s[2] / threads - s[3])
    return sum(s[2] for s in steps), sum(s[3] for s in steps), steps


def main(arguments: Sequence[str] | None = None) -> None:
    parser = selection.parser(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="how many of the worst steps to show")
    options = parser.parse_args(arguments)
    for count in (1, options.threads):
        best = min(_native.dispatch_seconds(count, 10000) for _ in range(5))
        print(f"empty step on {count} thread(s): {1e6 * best:.2f} us")
    for files in selection.models(options).values():
        path = list(files.values())[-1]
        one, several, steps = compare(path, options.threads, options.rounds)
        print(f"\n{path.stem}: {one:.2f} ms on one thread, {several:.2f} on {options.threads}: {one / several:.2f} times as fast")
        for name, kernel, alone, shared in steps[:options.steps]:
            print(f"  {shared - alone / options.threads:6.3f} ms lost: {alone:.3f} -> {shared:.3f}  {kernel} {name}")


if __name__ == "__main__":
    main()
