"""Which algorithm is the fastest for each node, measured: what `infold tune` does."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from .. import tuned
from ..api import InferenceSession, SessionOptions
from ..errors import UnsupportedError
from ..plan.choice import EVERY
from ..plan.plan import HostStep, Plan
from ..runtime import Runner
from .bench import measure, ratio_interval
from .engines import Prepared

RUNS = 3  # timed runs of a candidate in each round, after one to warm up
CHAIN = "chain"  # the algorithm that computes several nodes (ops/conv_chain.py)
MARGIN = 0.98  # of the planner's own choice's time: a candidate must take less


@dataclass(frozen=True)
class Tuned:
    """One node: the planner's choice, the fastest, and the milliseconds of each candidate. "chain" is that of the nodes in `nodes`
    together."""

    name: str
    planned: str
    best: str
    ms: dict[str, float]
    nodes: list[str]


@dataclass(frozen=True)
class TuneReport:
    """nodes: those with a choice; planned_ms, tuned_ms: of the whole model; ratio: planned / tuned with its 95 % interval;
    kept: whether the tuned choice was not slower, and sessions use it; path: the file that says so."""

    nodes: list[Tuned]
    planned_ms: float
    tuned_ms: float
    ratio: float
    interval: tuple[float, float]
    kept: bool
    path: str
    threads: int
    precision: str
    isa: str

    def to_dict(self) -> dict:
        return asdict(self)


def tune(model: object, feeds: Mapping[str, np.ndarray], sess_options: SessionOptions | None = None, rounds: int = 10,
         progress: Callable[[int, int], None] | None = None) -> TuneReport:
    """Measure the algorithms that the planner chooses among, and keep the fastest for sessions to come (see `infold.tuned`).

    Every candidate runs the whole model, so each layer is timed where it stands, between its neighbours: the candidates take turns,
    and the median of a layer's times counts. Then the planner's choice and the measured one run in turn, and the latter is
    kept only if the model is not slower with it.

    Args:
        feeds: arrays for the inputs, whose shapes the choice is for.
        progress: called with (turns done, turns in all).
    Raises:
        UnsupportedError: no node of this model is computed by an algorithm that was chosen among several.
    """
    options = replace(sess_options or SessionOptions(), tuned=False, algorithms={}, cache_dir="")
    session = InferenceSession(model, options)
    feeds = session.checked(feeds)
    forced = _Candidate(session, feeds, algorithms={EVERY: "direct"})  # so that no node is hidden in another's chain
    offered = {name: choice.offered for name, choice in forced.plan.choices.items()}
    ways = sorted({way for names in offered.values() for way in names})
    if all(len(names) < 2 for names in offered.values()):
        raise UnsupportedError("there is nothing to tune: no node of this model has several algorithms")
    candidates = {"planned": _Candidate(session, feeds), **{way: _Candidate(session, feeds, {
        name: way if way in names else next(n for n in names if n != CHAIN) for name, names in offered.items()}) for way in ways}}
    turns = rounds * len(candidates)
    for turn in range(turns):
        lap, place = divmod(turn, len(candidates))
        list(candidates.values())[(lap + place) % len(candidates)].time()
        if progress is not None:
            progress(turn + 1, turns)
    planner, found = candidates["planned"], _fastest(offered, candidates)
    best = _Candidate(session, feeds, {node.name: node.best for node in found})
    prepared = {name: Prepared(candidate.run, "", options.precision) for name, candidate in (("planned", planner), ("tuned", best))}
    times = measure(prepared, rounds=rounds, seconds=0.1, threads=session.threads)
    planned_ms, tuned_ms = (float(np.median([np.median(part) for part in times[name]])) for name in prepared)
    kept = tuned_ms <= planned_ms
    wanted = tuned.key(planner.runner.nodes, {name: np.shape(value) for name, value in feeds.items()}, planner.runner.options)
    path = tuned.keep(wanted, {node.name: node.best for node in found} if kept else {})
    return TuneReport(found, planned_ms, tuned_ms, planned_ms / tuned_ms, ratio_interval(times["planned"], times["tuned"]), kept,
                      str(path), session.threads, options.precision, session.isa)


class _Candidate:
    """A session's model with the given algorithms; it shares the packed weights of the others."""

    def __init__(self, session: InferenceSession, feeds: dict[str, np.ndarray], choice: Mapping[str, str] = {},
                 algorithms: Mapping[str, str] = {}) -> None:
        self.feeds, self.threads = feeds, session.threads
        options = session.plan_options._replace(tuned=choice, algorithms=algorithms, release=False)
        self.runner = Runner(session.model, list(session.outputs), options, session.runner.store)
        self.plan: Plan = self.runner.plan(feeds)
        self._seconds: list[dict[str, float]] = []

    def run(self) -> list:
        return list(self.runner.run(self.feeds, self.threads).values())

    def time(self) -> None:
        """A run to warm up, then timed ones."""
        self.run()
        for _ in range(RUNS):
            seconds: dict = {}
            self.runner.run(self.feeds, self.threads, seconds)
            self._seconds.append(self._by_node(seconds))

    def _by_node(self, seconds: dict) -> dict[str, float]:
        """Seconds of each node with a choice and of all steps behind it, up to the next. Of steps side by side the longest track
        counts, for the node that began them."""
        out: dict[str, float] = {}
        tracks: dict[tuple[str, int], dict[int, float]] = {}
        for owner, step in self.steps():
            if isinstance(step, HostStep) or not step.section:
                out[owner] = out.get(owner, 0.0) + sum(seconds[step])
            else:
                section = tracks.setdefault((owner, step.section), {})
                section[step.track] = section.get(step.track, 0.0) + sum(seconds[step])
        for (owner, _), spent in tracks.items():
            out[owner] = out.get(owner, 0.0) + max(spent.values())
        return out

    def steps(self):
        """Each step with the node whose choice it belongs to ("": before the first such node)."""
        owner = ""
        for step in self.plan.steps:
            owner = step.node if step.node in self.plan.choices else owner
            yield owner, step

    def ms(self, node: str) -> float:
        """The median time of a node."""
        return 1e3 * float(np.median([run.get(node, 0.0) for run in self._seconds]))

    def chained(self, node: str, all_nodes: Mapping) -> list[str]:
        """The nodes that this node's chain computes, none if it is no chain."""
        if node not in self.plan.choices or self.plan.choices[node].name != CHAIN:
            return []
        inside = {step.node for owner, step in self.steps() if owner == node} & all_nodes.keys()
        return [node, *(name for name in all_nodes if name in inside and name != node)]


def _fastest(offered: Mapping[str, tuple[str, ...]], candidates: Mapping[str, _Candidate]) -> list[Tuned]:
    """By node, in order. A chain stands against the sum of what its nodes take one by one."""
    planned = {name: choice.name for name, choice in candidates["planned"].plan.choices.items()}
    apart = {node: {way: candidates[way].ms(node) for way in ways if way != CHAIN} for node, ways in offered.items()}
    out, chained = [], set()
    for node, ms in apart.items():
        chain = candidates[CHAIN].chained(node, offered) if CHAIN in candidates and node not in chained else []
        best = _least(ms, planned.get(node, CHAIN))
        if chain:
            ms = {**ms, CHAIN: candidates[CHAIN].ms(node)}
            both = {CHAIN: ms[CHAIN], best: sum(min(apart[name].values()) for name in chain)}
            best = _least(both, CHAIN if planned.get(node) == CHAIN else best)
            chained |= set(chain) if best == CHAIN else set()
        out.append(Tuned(node, planned.get(node, CHAIN), CHAIN if node in chained else best, ms, chain))
    return out


def _least(ms: Mapping[str, float], planned: str) -> str:
    """The fastest; the planner's choice unless that is clearly slower."""
    best = min(ms, key=ms.__getitem__)
    return planned if planned in ms and ms[best] > MARGIN * ms[planned] else best
