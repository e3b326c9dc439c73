"""Iterations of a body at a stretch: one call of its program, if its plan is native steps alone and its state keeps its shape."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .plan import HostStep, Plan, dense


@dataclass(eq=False)
class Turns:
    """What iterations take and leave.

    columns: feed -> an array that holds, along axis 0, what each iteration takes; carried: feed -> the output that the next
    iteration takes in its place; kept: the outputs that are wanted of every iteration, along a new axis 0; condition: an output
    that ends them if it is false, or None; room: bytes that the kept outputs should take at the most.
    done: how many iterations were run, 0 until then.
    """

    columns: Mapping[str, np.ndarray]
    carried: Mapping[str, str]
    kept: Sequence[str]
    condition: str | None
    room: int
    done: int = 0


def repeat(plan: Plan, values: Mapping[str, object], turns: Turns, threads: int, seconds: dict | None) -> dict[str, object] | None:
    """What leaves the plan after `turns.done` iterations, by name, or None if it cannot go on by itself. values: the feeds of the
    first one; seconds: as in `execute`."""
    if plan.rest or plan.named or plan.counts or not plan.steps or any(isinstance(s, HostStep) for s in plan.steps):
        return None
    carried = {feed: name for feed, name in turns.carried.items() if not _stays(plan, values[feed], name)}
    if len({*carried.values(), *turns.kept}) < len(carried) + len(turns.kept):
        return None
    for feed, name in carried.items():
        if not isinstance(values[feed], np.ndarray) or plan.outputs.get(name) != (values[feed].shape, values[feed].dtype):
            return None
    inputs, kept = {name: values[name] for name in plan.inputs}, [name for name in turns.kept if name in plan.outputs]
    region = {name: 1 + len(inputs) + i for i, name in enumerate(plan.outputs)}
    size = sum(plan.program.region_bytes[region[name]] for name in kept)
    trips = max(1, min(turns.room // max(size, 1), *(len(column) for column in turns.columns.values())))
    inputs |= {name: column[:trips] for name, column in turns.columns.items() if name in inputs}
    inputs |= {feed: np.array(values[feed], order="C") for feed in carried}  # a copy, which is written to
    outputs = {name: np.empty((trips, *shape) if name in kept else shape, dtype) for name, (shape, dtype) in plan.outputs.items()}
    number = {name: 1 + i for i, name in enumerate(inputs)}
    arena, clock = plan.arena(), np.zeros(len(plan.program)) if seconds is not None else None
    faulty, turns.done = plan.program.repeat(
        [arena, *map(dense, inputs.values()), *outputs.values()], threads, clock, trips,
        {*(number[name] for name in turns.columns if name in number), *(region[name] for name in kept)},
        [(number[feed], region[name]) for feed, name in carried.items()], region.get(turns.condition, -1))
    plan.require_inside(faulty)
    plan.arenas.append(arena)
    if clock is not None:
        for step, spent in zip(plan.steps, clock):
            seconds.setdefault(step, []).append(float(spent))
    outputs |= {name: outputs[name][:turns.done] for name in kept}
    if turns.done % 2 == 0:
        outputs |= {name: inputs[feed] for feed, name in carried.items()}
    return outputs | {name: np.repeat(value[None], turns.done, 0) if name in turns.kept else value.copy()
                      for name, value in plan.constants.items()}


def _stays(plan: Plan, value: object, name: str) -> bool:
    """Whether every iteration leaves what it took."""
    found = plan.constants.get(name)
    return found is not None and isinstance(value, np.ndarray) and (value.shape, value.dtype, value.tobytes()) == (
        found.shape, found.dtype, found.tobytes())
