"""If, Loop and Scan as specified, around bodies that somebody else runs.

onnx.reference concatenates scan outputs where it must stack them, takes an absent loop condition for false, and knows neither scan
axes nor directions nor the batched Scan of opset 8.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

CONTROL = ("If", "Loop", "Scan")
AHEAD = 4096  # iterations of a Loop that may be run at a stretch


class Body(NamedTuple):
    """A subgraph that is run again and again.

    run: takes what iterations take along axis 0 of arrays, and the state; runs one or more of them, and gives how many, and the
    values of its `outputs` outputs: the state, then what each iteration gave, along axis 0. empty(i): output i of no iteration.
    """

    run: Callable[[Sequence[np.ndarray], Sequence[object]], tuple[int, list]]
    outputs: int
    empty: Callable[[int], np.ndarray]


def one_by_one(run: Callable[[Sequence[object]], list], columns_first: bool):
    """`Body.run` from what runs one iteration, and takes what iterations take before the state or behind it."""

    def iteration(columns: Sequence[np.ndarray], state: Sequence[object]) -> tuple[int, list]:
        first = [np.asarray(column[0]) for column in columns]
        results = run([*first, *state] if columns_first else [*state, *first])
        return 1, [*results[:len(state)], *(np.asarray(value)[None] for value in results[len(state):])]

    return iteration


def loop(body: Body, max_trips, condition, state: Sequence[object]) -> tuple:
    """for i in range(max_trips) while condition: condition, state, outputs[i] = body(i, condition, state)."""
    limit = sys.maxsize if max_trips is None else int(np.asarray(max_trips).item())
    state = [np.array(condition is None or bool(np.asarray(condition).item())), *state]

    def numbers(done: int, state: Sequence[object]) -> list[np.ndarray] | None:
        state[0] = np.array(bool(state[0]))
        return [np.arange(done, min(limit, done + AHEAD), dtype=np.int64)] if state[0] and done < limit else None

    return tuple(_iterate(body, state, numbers)[1:])


def scan(body: Body, args: Sequence, count: int, axes=None, directions=None, out_axes=None, out_directions=None) -> tuple:
    """state, outputs[i] = body(state, inputs[i]) along an axis of each of the last `count` arguments, forwards or backwards."""
    state, inputs = list(args[:-count]), args[-count:]
    inputs = [np.moveaxis(x, _at(axes, i), 0) for i, x in enumerate(inputs)]
    inputs = [np.flip(x, 0) if _at(directions, i) else x for i, x in enumerate(inputs)]
    if len({x.shape[0] for x in inputs}) > 1:
        raise ValueError(f"scan inputs of {', '.join(str(x.shape[0]) for x in inputs)} entries")
    results = _iterate(body, state, lambda done, _: [x[done:] for x in inputs] if done < inputs[0].shape[0] else None)
    outputs = [np.moveaxis(np.flip(values, 0) if _at(out_directions, i) else values, 0, _at(out_axes, i))
               for i, values in enumerate(results[len(state):])]
    return (*results[:len(state)], *outputs)


def _iterate(body: Body, state: list, ahead: Callable[[int, list], list[np.ndarray] | None]) -> list:
    """state, outputs[i] = body(state, columns[i]). ahead: the columns from the next iteration on, or None behind the last one."""
    done, outputs = 0, [[] for _ in range(body.outputs - len(state))]
    while (columns := ahead(done, state)) is not None:
        ran, results = body.run(columns, state)
        state, done = results[:len(state)], done + ran
        for values, value in zip(outputs, results[len(state):]):
            values.append(value)
    return [*state, *(np.concatenate(v) if v else body.empty(len(state) + i) for i, v in enumerate(outputs))]


def scan_batched(body: Body, args: Sequence, count: int, directions=None) -> tuple:
    """The Scan of opset 8: everything has a batch dimension, each sample its own length."""
    lengths, *args = args
    samples = []
    for sample, columns in enumerate(zip(*args)):
        length = columns[-1].shape[0] if lengths is None else int(lengths[sample])
        columns = [*columns[:-count], *(column[:length] for column in columns[-count:])]
        samples.append(scan(body, columns, count, None, directions))
    return tuple(_pad_and_stack(values) for values in zip(*samples))


def _at(values, index: int) -> int:
    """An entry of an optional list attribute, 0 by default."""
    return values[index] if values else 0


def _pad_and_stack(values: tuple[np.ndarray, ...]) -> np.ndarray:
    longest = max(value.shape[:1] for value in values)
    return np.stack([
        np.pad(value, [(0, n - m) for n, m in zip(longest, value.shape[:1])] + [(0, 0)] * (value.ndim - len(longest)))
        for value in values])
