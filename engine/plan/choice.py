"""Which of several algorithms computes a node: as asked for, otherwise the one that should be the fastest."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

EVERY = "*"  # in `algorithms`: every node that can


@dataclass(frozen=True)
class Way:
    """One algorithm for one node. cycles: the cost model's estimate, on one thread; emit: lowers the node that way, without
    refusing; half: whether it reads and writes images of bf16 numbers."""

    name: str
    cycles: float
    emit: Callable[[], None]
    half: bool = False


def choose(node_name: str, ways: Sequence[Way], algorithms: Mapping[str, str]) -> Way:
    """The way named in `algorithms` for this node, or for every node; what is named there but impossible here is ignored, since a
    choice made elsewhere (another shape, another CPU) must not stop a run. Otherwise the least estimate.

    ways: at least one; the first of equals wins.
    """
    wanted = algorithms.get(node_name, algorithms.get(EVERY))
    return next((w for w in ways if w.name == wanted), min(ways, key=lambda w: w.cycles))
