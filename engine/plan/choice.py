"""Which of several algorithms computes a node: as asked for, otherwise the one that should be the fastest."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import NamedTuple

EVERY = "*"  # in `algorithms`: every node that can
HOPE = 4  # times the least estimate: more is not worth trying


class Way(NamedTuple):
    """One algorithm for one node. cycles: the cost model's estimate, on one thread, infinite for what is not offered, only obeyed;
    emit: lowers the node that way, without refusing; half: whether it reads and writes images of bf16 numbers; alone: whether it
    computes nothing but the node (else the estimate is that of the node less what the others gain); padded: whether it reads zeros
    around its input."""

    name: str
    cycles: float
    emit: Callable[[], None]
    half: bool = False
    alone: bool = True
    padded: bool = True


class Choice(NamedTuple):
    """name: the way that was taken; offered: see `offered`."""

    name: str
    offered: tuple[str, ...]


def offered(ways: Sequence[Way]) -> tuple[str, ...]:
    """The names of those that might be the fastest, if the estimates are roughly right."""
    limit = HOPE * min((w.cycles for w in ways if w.alone), default=inf)
    return tuple(w.name for w in ways if w.cycles <= limit and w.cycles < inf)


def choose(node_name: str, ways: Sequence[Way], algorithms: Mapping[str, str], tuned: Mapping[str, str]) -> Way:
    """The way named in `algorithms` for this node, or for every node; what is named there but impossible here is ignored, since a
    choice made elsewhere (another shape, another CPU) must not stop a run. Otherwise what `tuned` names, if it is offered;
    otherwise the least estimate.

    ways: at least one; the first of equals wins.
    """
    wanted, measured = algorithms.get(node_name, algorithms.get(EVERY)), tuned.get(node_name)
    if all(w.name != wanted for w in ways):
        wanted = measured if measured in offered(ways) else None
    return next((w for w in ways if w.name == wanted), min(ways, key=lambda w: w.cycles))
