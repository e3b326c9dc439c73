"""If, Loop and Scan as specified, around bodies that somebody else runs.

onnx.reference concatenates scan outputs where it must stack them, takes an absent loop condition for false, and knows neither scan
axes nor directions nor the batched Scan of opset 8.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CONTROL = ("If", "Loop", "Scan")


@dataclass(frozen=True)
class Body:
    """A subgraph. run: the values of its `outputs` outputs, in order, from those of its inputs; empty(i): what output i is,
    stacked, if it never runs."""

    run: Callable[[Sequence[object]], list]
    outputs: int
    empty: Callable[[int], np.ndarray]


def loop(body: Body, max_trips, condition, state: Sequence[object]) -> tuple:
    """for iteration in range(max_trips) while condition: state, outputs[iteration] = body(iteration, condition, state)."""
    collected: list[list] = [[] for _ in range(body.outputs - 1 - len(state))]
    limit = None if max_trips is None else int(np.asarray(max_trips).item())
    iteration, state, going = 0, list(state), condition is None or bool(np.asarray(condition).item())
    while going and (limit is None or iteration < limit):
        going, *results = body.run([np.array(iteration, np.int64), np.array(going), *state])
        going, state = bool(going), results[:len(state)]
        for values, value in zip(collected, results[len(state):]):
            values.append(value)
        iteration += 1
    return (*state, *(_stack(values, body, 1 + len(state) + i) for i, values in enumerate(collected)))


def scan(body: Body, args: Sequence, count: int, axes=None, directions=None, out_axes=None, out_directions=None) -> tuple:
    """state, outputs[i] = body(state, inputs[i]) along an axis of each of the last `count` arguments, forwards or backwards."""
    state, inputs = list(args[:-count]), args[-count:]
    inputs = [np.moveaxis(x, _at(axes, i), 0) for i, x in enumerate(inputs)]
    inputs = [np.flip(x, 0) if _at(directions, i) else x for i, x in enumerate(inputs)]
    if len({x.shape[0] for x in inputs}) > 1:
        raise ValueError(f"scan inputs of {', '.join(str(x.shape[0]) for x in inputs)} entries")
    collected: list[list] = [[] for _ in range(body.outputs - len(state))]
    for step in range(inputs[0].shape[0]):
        results = body.run([*state, *(np.asarray(x[step]) for x in inputs)])
        state = results[:len(state)]
        for values, value in zip(collected, results[len(state):]):
            values.append(value)
    outputs = [np.moveaxis(_stack(values[::-1] if _at(out_directions, i) else values, body, len(state) + i), 0, _at(out_axes, i))
               for i, values in enumerate(collected)]
    return (*state, *outputs)


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


def _stack(values: list, body: Body, index: int) -> np.ndarray:
    return np.stack(values) if values else body.empty(index)


def _pad_and_stack(values: tuple[np.ndarray, ...]) -> np.ndarray:
    longest = max(value.shape[:1] for value in values)
    return np.stack([
        np.pad(value, [(0, n - m) for n, m in zip(longest, value.shape[:1])] + [(0, 0)] * (value.ndim - len(longest)))
        for value in values])
