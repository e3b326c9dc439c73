"""What threads cost and give: the machine's own scaling, the price of handing out work, each model's time on one and on several.

    python bench/threads.py --zoo build/zoo [NAME ...] [--threads 2] [--output build/bench]

First multiply-adds on registers and copies in memory on one thread and on several, and the microseconds of an empty parallel step.
Then, for each model (optimised export), milliseconds on one thread, on several, and of as many sessions of one thread side by side
(whole and step by step, divided by their number): nothing is shared out there and nobody waits, so no division of the work can be
faster. Runs are taken in turn. Where time is lost to that ceiling is told by kind of step and for the worst steps. Times are first
quintiles: what the code can do when the machine lets it. --output: a folder for threads.json, with every step, and threads.md, a
table of the models.
"""
from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Barrier

import numpy as np
import selection

import infold
from infold import _native, host
from infold.report.roofline import bandwidth

LONG = 5  # milliseconds on one thread: shorter models have no part in the means
COPY = 1 << 26  # bytes of the arrays that one thread copies: more than it has cache


def machine(threads: int) -> tuple[float, float]:
    """Multiply-adds a second (times two) on registers, and bytes a second copied in memory."""
    with ThreadPoolExecutor(threads) as pool:
        return _native.peak_flops(host.isa(), 0.1, False, threads), sum(pool.map(bandwidth, [COPY] * threads))


@dataclass(frozen=True)
class Loss:
    """The steps of one node and kernel: milliseconds on one thread, on several, and what these lose to sessions side by side."""

    node: str
    kernel: str
    one: float
    several: float
    lost: float


@dataclass(frozen=True)
class Scaling:
    """A model's milliseconds on one thread, on several, and of sessions side by side, divided by their number; losses: by node, the
    largest first."""

    model: str
    one: float
    several: float
    beside: float
    losses: list[Loss]

    @property
    def ratio(self) -> float:
        return self.one / self.several

    @property
    def ceiling(self) -> float:
        return self.one / self.beside

    def by_kernel(self) -> dict[str, tuple[float, float]]:
        """Milliseconds lost and taken on one thread, by kernel, the largest loss first."""
        sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        for loss in self.losses:
            lost, one = sums[loss.kernel]
            sums[loss.kernel] = lost + loss.lost, one + loss.one
        return dict(sorted(sums.items(), key=lambda item: -item[1][0]))


Times = dict[tuple[str, str] | None, float]  # milliseconds of the steps of a node and kernel; None: of a whole run


def quintile(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=5)[0] if len(times) > 1 else sum(times)


def timed(session: infold.InferenceSession, feeds: dict[str, np.ndarray], threads: int, start: Barrier) -> Times:
    """The median of three runs, and one run step by step, begun together with others'. Steps that run side by side count with their
    share."""
    session.run(None, feeds)
    start.wait()
    whole = []
    for _ in range(3):
        began = time.perf_counter()
        session.run(None, feeds)
        whole.append(1e3 * (time.perf_counter() - began))
    start.wait()
    taken: Times = defaultdict(float, {None: statistics.median(whole)})
    for record in session.profile(feeds, runs=1):
        taken[record.name, record.kernel] += record.ms / (threads if record.side_by_side else 1)
    return taken


def compare(path: Path, threads: int, rounds: int) -> Scaling:
    single = [infold.InferenceSession(path, infold.SessionOptions(intra_op_num_threads=1)) for _ in range(threads)]
    shared = infold.InferenceSession(path, infold.SessionOptions(intra_op_num_threads=threads))
    rng = np.random.default_rng(0)
    shapes = {i.name: [d if isinstance(d, int) else 1 for d in i.shape] for i in shared.get_inputs()}
    feeds = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    found: list[dict] = []  # by round: times on one thread, on several, side by side
    with ThreadPoolExecutor(threads) as pool:
        together = Barrier(threads)
        for _ in range(rounds):
            one = timed(single[0], feeds, 1, Barrier(1))
            several = timed(shared, feeds, threads, Barrier(1))
            beside = list(pool.map(lambda session: timed(session, feeds, 1, together), single))
            found.append({key: (one[key], several[key], sum(b[key] for b in beside) / threads ** 2) for key in one})
    times = {key: [quintile([each[key][at] for each in found]) for at in range(3)] for key in found[0]}
    whole = times.pop(None)
    losses = [Loss(*key, one, several, several - beside) for key, (one, several, beside) in times.items()]
    return Scaling(path.stem, *whole, sorted(losses, key=lambda loss: -loss.lost))


def write(folder: Path, threads: int, limits: dict[str, float], found: list[Scaling]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    heads = ["model", "one thread, ms", f"{threads} threads, ms", "ratio", "ceiling", "lost, ms, by kind of step"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for s in found:
        kinds = ", ".join(f"{name} {lost:.2f} of {one:.2f}" for name, (lost, one) in list(s.by_kernel().items())[:3])
        lines.append(f"| {s.model} | {s.one:.2f} | {s.several:.2f} | {s.ratio:.2f} | {s.ceiling:.2f} | {kinds} |")
    models = [{"ratio": s.ratio, "ceiling": s.ceiling, **asdict(s)} for s in found]
    whole = {"threads": threads, "machine": limits, "models": models}
    for name, text in (("threads.md", "\n".join(lines)), ("threads.json", json.dumps(whole, indent=1))):
        (folder / f"{name}.new").write_text(text + "\n")
        (folder / f"{name}.new").replace(folder / name)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = selection.parser(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5, help="how many of the worst steps to show")
    parser.add_argument("--output", type=Path, help="folder for threads.json and threads.md")
    options = parser.parse_args(arguments)
    one, several = machine(1), machine(options.threads)
    limits, found = {}, []
    for what, unit, alone, shared in zip(("multiply-adds", "copies"), ("GFLOP/s", "GB/s"), one, several):
        limits[what] = shared / alone
        print(f"{what}: {alone / 1e9:.0f} {unit} on one thread, {shared / 1e9:.0f} on {options.threads}: {shared / alone:.2f}")
    for count in (1, options.threads):
        best = min(_native.dispatch_seconds(count, 10000) for _ in range(5))
        print(f"empty step on {count} thread(s): {1e6 * best:.2f} us")
    for files in selection.models(options).values():
        scaling = compare(list(files.values())[-1], options.threads, options.rounds)
        found.append(scaling)
        print(f"\n{scaling.model}: {scaling.one:.2f} ms on one thread, {scaling.several:.2f} on {options.threads}: "
              f"{scaling.ratio:.2f} times as fast, side by side {scaling.ceiling:.2f}")
        print("  lost, ms: " + ", ".join(f"{name} {lost:.3f} of {one:.2f}" for name, (lost, one) in scaling.by_kernel().items()))
        for loss in scaling.losses[:options.steps]:
            print(f"  {loss.lost:6.3f} ms lost: {loss.one:.3f} -> {loss.several:.3f}  {loss.kernel} {loss.node}")
    longer = [s for s in found if s.one > LONG]
    if longer:
        ratio, ceiling = (statistics.geometric_mean(getattr(s, name) for s in longer) for name in ("ratio", "ceiling"))
        print(f"\n{len(longer)} models over {LONG} ms: {ratio:.2f} times as fast, side by side {ceiling:.2f} (geometric means)")
    if options.output:
        write(options.output, options.threads, limits, found)


if __name__ == "__main__":
    main()
