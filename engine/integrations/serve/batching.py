"""Requests to one session: queued, run off the event loop, and together where that changes no bit of their results."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ...api import InferenceSession
from ...compiled import CompiledRunner
from ...errors import Error
from ...plan.plan import plan_key
from ...report.inputs import inputs_of, random_inputs

KNOWN_SIZES = 1024  # how many answers of `Batcher._unchanged` are kept
CONTROL_FLOW = {"If", "Loop", "Scan"}


class OverloadedError(Error):
    """The queue is full: the request was not taken, and may be sent again later."""


@dataclass(eq=False)
class _Request:
    feeds: dict[str, object]
    key: tuple  # only requests with the same names, shapes and types run together
    result: asyncio.Future


class Batcher:
    """Runs requests in the order in which they came, each as soon as a thread is free.

    Those that have come meanwhile with the same shapes may run as one batch of 2, 4, 8, ... rows. This needs a model whose inputs
    and outputs all begin with one open dimension of the same name, and a trial on random inputs in which every row had the
    bits that it has alone.

    Args:
        session: what runs them.
        max_batch: the most rows of a batch; 1: every request runs alone.
        max_queue: how many requests may wait.
        wait: seconds to wait for more requests before a batch that is not full.
        parallel: how many runs there may be at a time.

    Attributes:
        requests, runs: how many requests have been run, and in how many runs.
    """

    def __init__(self, session: InferenceSession, max_batch: int = 8, max_queue: int = 128, wait: float = 0.0,
                 parallel: int = 1) -> None:
        self.session, self.max_queue, self._wait = session, max_queue, wait
        self.max_batch = max_batch if _has_rows(session) else 1
        self._executor = ThreadPoolExecutor(parallel, "infold")
        self._queue: deque[_Request] = deque()
        self.requests = self.runs = 0
        self._parallel = self._free = parallel
        self._drains: set[asyncio.Task] = set()  # asyncio itself keeps none alive
        self._same_bits: dict[tuple[tuple, int], bool] = {}  # (key of a request, how many of them) -> the result of the trial

    @property
    def waiting(self) -> int:
        """How many requests are in the queue."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Whether no run is going on."""
        return self._free == self._parallel

    def prepare(self) -> list[int]:
        """Plan, and try out, what is known before the first request; returns the rows of the batches that will be made.

        An open first dimension is 1 here. Models with other open dimensions are planned, and tried out, as requests come.
        """
        if not all(port.is_array for port in self.session.inputs.values()):
            return []
        model = inputs_of(self.session)
        shapes = {value.name: [dim if isinstance(dim, int) else 1 if axis == 0 and self.max_batch > 1 else None
                               for axis, dim in enumerate(value.shape or [None])] for value in model.graph.inputs}
        if any(None in shape for shape in shapes.values()):
            return []
        feeds = random_inputs(model, shapes)
        if isinstance(self._alone(feeds), Error):  # random numbers are nothing to this model
            return []
        rows = [1 << power for power in range(1, self.max_batch.bit_length())]
        return [count for count in rows if self._unchanged(feeds, plan_key(feeds), count)]

    def refuse_more(self, others: int = 0) -> None:
        """Raise OverloadedError if the queue is full; others: requests on their way into it."""
        if len(self._queue) + others >= self.max_queue:
            self._queue = deque(self._alive())
        if len(self._queue) + others >= self.max_queue:
            raise OverloadedError(f"{self.max_queue} requests are waiting: try again later")

    async def run(self, feeds: Mapping[str, object]) -> dict[str, object]:
        """All outputs by name.

        Raises: OverloadedError if the queue is full, otherwise as `InferenceSession.run`.
        """
        checked, loop = self.session.checked(feeds), asyncio.get_running_loop()
        self.refuse_more()
        request = _Request(checked, plan_key(checked), loop.create_future())
        self._queue.append(request)
        if self._free:
            self._free -= 1
            drain = loop.create_task(self._drain())
            self._drains.add(drain)
            drain.add_done_callback(self._drains.discard)
        return await request.result

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            if self._wait and len(self._queue) < self.max_batch:
                await asyncio.sleep(self._wait)
            batch = self._take()
            try:
                results = await loop.run_in_executor(self._executor, self._compute, batch)
            except Exception as error:  # whoever asked gets to see it
                results = [error] * len(batch)
            for request, result in zip(batch, results):
                if request.result.done():  # given up meanwhile
                    continue
                if isinstance(result, Exception):
                    request.result.set_exception(result)
                else:
                    request.result.set_result(result)
        self._free += 1  # in one go with the look at the queue: whoever comes next finds either a drain that looks, or a free one

    def _alive(self) -> list[_Request]:
        """The requests in the queue that somebody waits for."""
        return [request for request in self._queue if not request.result.done()]

    def _take(self) -> list[_Request]:
        """Remove from the queue what runs next."""
        alive = self._alive()
        batch = alive[:1]
        if batch and self.max_batch > 1 and batch[0].feeds.keys() == self.session.inputs.keys():
            key = batch[0].key
            alike = [request for request in alive if request.key == key]
            most = min(len(alike), self.max_batch // max(_rows(batch[0].feeds), 1))
            counts = [1 << power for power in range(max(most, 1).bit_length())]
            batch = alike[:max(count for count in counts if count == 1 or self._same_bits.get((key, count), True))]
        self.requests += len(batch)
        self.runs += bool(batch)
        taken = set(batch)
        self._queue = deque(request for request in alive if request not in taken)
        return batch

    def _compute(self, batch: list[_Request]) -> list[dict[str, object] | Error]:
        if len(batch) > 1 and self._unchanged(batch[0].feeds, batch[0].key, len(batch)):
            try:
                return self._together([request.feeds for request in batch])
            except Error:  # of one of them: each alone then, and each its own error
                return [self._alone(request.feeds) for request in batch]
        return [self._alone(request.feeds) for request in batch]

    def _alone(self, feeds: dict[str, object]) -> dict[str, object] | Error:
        try:
            return self._run(feeds)
        except Error as error:
            return error

    def _run(self, feeds: dict[str, object]) -> dict[str, object]:
        return dict(zip(self.session.outputs, self.session.run(None, feeds)))

    def _together(self, several: list[dict[str, object]]) -> list[dict[str, object]]:
        joined = self._run({name: np.concatenate([feeds[name] for feeds in several]) for name in several[0]})
        parts = {name: np.split(value, len(several)) for name, value in joined.items()}
        return [{name: part[i] for name, part in parts.items()} for i in range(len(several))]

    def _unchanged(self, feeds: dict[str, object], key: tuple, count: int) -> bool:
        """Whether `count` requests of the shapes of these feeds have the same bits together as alone; tried on random inputs."""
        known = self._same_bits.get((key, count))
        if known is None:
            if len(self._same_bits) >= KNOWN_SIZES:
                self._same_bits.clear()
            known = self._same_bits[key, count] = self._try(feeds, count)
        return known

    def _try(self, feeds: dict[str, object], count: int) -> bool:
        shapes = {name: (count * array.shape[0], *array.shape[1:]) for name, array in feeds.items()}
        runner = self.session.runner
        stand_in = {name: np.broadcast_to(np.zeros((), array.dtype), shapes[name]) for name, array in feeds.items()}
        if isinstance(runner, CompiledRunner) and not runner.has_plan(stand_in):
            return False
        data = random_inputs(inputs_of(self.session), shapes, seed=count)
        pieces = {name: np.split(value, count) for name, value in data.items()}
        several = [{name: piece[i] for name, piece in pieces.items()} for i in range(count)]
        try:
            together, alone = self._together(several), [self._run(one) for one in several]
        except (Error, ValueError):  # random inputs are none for this model, or its results cannot be split
            return False
        same = all(one[name].tobytes() == row[name].tobytes() and one[name].shape == row[name].shape
                   for one, row in zip(alone, together) for name in one)
        return same and any(np.unique(value).size > 1 for one in alone for value in one.values() if value.dtype.kind == "f")


def _rows(feeds: dict[str, object]) -> int:
    return max(len(value) for value in feeds.values())


def _has_rows(session: InferenceSession) -> bool:
    """Whether all inputs and outputs begin with the same open dimension, and nothing in the model asks what all rows hold."""
    ports = [*session.inputs.values(), *session.outputs.values()]
    first = {port.dims[0] if port.is_array and port.dims else None for port in ports}
    nodes = getattr(session.runner, "nodes", ())
    return len(first) == 1 and isinstance(first.pop(), str) and not any(node.op_type in CONTROL_FLOW for node in nodes)
