"""What threads cost and give: the machine's own scaling, the price of handing out work, each model's time on one and on several.

    python bench/threads.py --zoo build/zoo [NAME ...] [--threads 2]

First multiply-adds on registers and copies in memory on one thread and on several (no model can scale better), and the
microseconds of an empty parallel step. Then, for each model (optimised export), milliseconds on one thread and on several, runs
taken in turn, and the steps that lose most: their time on several threads beyond a perfect division.
"""
from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import selection

import infold
from infold import _native, host
from infold.report.roofline import bandwidth

COPY = 1 << 26  # bytes of the arrays that one thread copies: more than it has cache


def machine(threads: int) -> tuple[float, float]:
    """Multiply-adds a second (times two) on registers, and bytes a second copied in memory."""
    with ThreadPoolExecutor(threads) as pool:
        return _native.peak_flops(host.isa(), 0.1, False, threads), sum(pool.map(bandwidth, [COPY] * threads))


def compare(path: Path, threads: int, rounds: int) -> tuple[float, float, list[tuple[str, str, float, float]]]:
    """Milliseconds of a run on one thread and on several, and (node, operation, ms on one, ms on several) of each node's steps,
    worst first; steps that run side by side count with their share."""
    counts = (1, threads)
    sessions = [infold.InferenceSession(path, infold.SessionOptions(intra_op_num_threads=n)) for n in counts]
    rng = np.random.default_rng(0)
    shapes = {i.name: [d if isinstance(d, int) else 1 for d in i.shape] for i in sessions[0].get_inputs()}
    feeds = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    whole: tuple[list, list] = [], []
    steps: dict[tuple[str, str], tuple[list, list]] = defaultdict(lambda: ([], []))
    for _ in range(rounds):
        for at, session in enumerate(sessions):
            session.run(None, feeds)
            began = time.perf_counter()
            session.run(None, feeds)
            whole[at].append(1e3 * (time.perf_counter() - began))
            taken: dict[tuple[str, str], float] = defaultdict(float)
            for record in session.profile(feeds, runs=3):
                taken[record.name, record.kernel] += record.ms / (counts[at] if record.side_by_side else 1)
            for key, ms in taken.items():
                steps[key][at].append(ms)
    worst = [(*key, *(statistics.median(times) if times else 0.0 for times in both)) for key, both in steps.items()]
    worst.sort(key=lambda s: s[2] / threads - s[3])
    return statistics.median(whole[0]), statistics.median(whole[1]), worst


def main(arguments: Sequence[str] | None = None) -> None:
    parser = selection.parser(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="how many of the worst steps to show")
    options = parser.parse_args(arguments)
    one, several = machine(1), machine(options.threads)
    for what, unit, alone, shared in zip(("multiply-adds", "copies"), ("GFLOP/s", "GB/s"), one, several):
        print(f"{what}: {alone / 1e9:.0f} {unit} on one thread, {shared / 1e9:.0f} on {options.threads}: {shared / alone:.2f}")
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
