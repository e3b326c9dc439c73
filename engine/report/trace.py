"""What a session did and when, as a Chrome trace: Perfetto (ui.perfetto.dev) and chrome://tracing open it.

Format: "Trace Event Format" (Google, 2016), complete events ("ph": "X"), times in microseconds.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .. import _native
from ..files import write
from ..locks import lock
from ..plan.plan import FallbackStep
from ..plan.program import Step
from .session import StepRecord

TRACKS = 256  # numbers of lanes set apart for each thread that calls


class Trace:
    """The events of a session's runs. Threads that run the session at the same time get lanes of their own."""

    def __init__(self) -> None:
        self._events: list[dict] = []
        self._lanes: dict[int, int] = {}
        self._lock = lock()

    def run(self, runner, feeds: dict[str, object], threads: int, out: Mapping[str, np.ndarray] | None = None) -> dict[str, object]:
        """A runner's run, added to the trace."""
        seconds: dict[Step | FallbackStep, list[float]] = {}
        began = _native.now()
        results = runner.run(feeds, threads, seconds, out)
        self._add(began, _native.now(), seconds)
        return results

    def _add(self, began: float, ended: float, seconds: Mapping[Step | FallbackStep, list[float]]) -> None:
        """Steps are drawn one behind the other; those of a section, which several threads share, in a lane for each track."""
        with self._lock:
            lane = TRACKS * self._lanes.setdefault(threading.get_ident(), len(self._lanes))
            self._event("run", "session", began, ended - began, lane, {})
            section, start, ends = 0, began, {}
            for step, (spent,) in seconds.items():
                current = getattr(step, "section", 0)
                if not current or current != section:
                    section, start, ends = current, max(ends.values(), default=start), {}
                track = getattr(step, "track", 0)
                at = ends.get(track, start)
                ends[track] = at + spent
                record = StepRecord.of(step, spent)
                facts = {"kernel": record.kernel, "gflops": record.gflops, "native": record.native}
                self._event(record.name, record.op, at, spent, lane + track % TRACKS, facts)

    def write(self, path: Path) -> None:
        """Write all events so far; the file appears whole or not at all."""
        with self._lock:
            names = [
                {"name": "thread_name", "ph": "M", "pid": 1, "tid": lane,
                 "args": {"name": f"caller {lane // TRACKS}, track {lane % TRACKS}"}}
                for lane in sorted({event["tid"] for event in self._events})
            ]
            document = {"traceEvents": [*names, *self._events], "displayTimeUnit": "ms"}
        write(path, lambda made: made.write_text(json.dumps(document), encoding="utf-8"))

    def _event(self, name: str, category: str, began: float, spent: float, lane: int, facts: dict) -> None:
        self._events.append({
            "name": name, "cat": category, "ph": "X", "ts": 1e6 * began, "dur": 1e6 * spent, "pid": 1, "tid": lane, "args": facts,
        })  # fmt: skip
