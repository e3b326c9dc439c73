"""Sessions under MLPerf's LoadGen, which decides when queries come, measures, and says whether a run was valid.

Source: Reddi et al., "MLPerf Inference Benchmark" (2020); https://github.com/mlcommons/inference, loadgen.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..api import InferenceSession
from ..errors import InvalidInputError, MissingDependencyError

SCENARIOS = ("SingleStream", "Offline", "Server")
_LOG = "mlperf_log_detail.txt"
_MARK = ":::MLLOG "


@dataclass(frozen=True)
class Result:
    """What LoadGen found. Times in ms, of a query from when it was due to when it was answered; `rate`: samples a second."""

    scenario: str
    valid: bool
    reason: str
    queries: int
    rate: float
    mean: float
    p50: float
    p90: float
    p99: float

    def to_dict(self) -> dict:
        return asdict(self)


def measure(
    session: InferenceSession,
    samples: Sequence[Mapping[str, np.ndarray]],
    logs: Path,
    scenario: str = "SingleStream",
    *,
    seconds: float = 10.0,
    queries: int = 500,
    batch: int = 1,
    rate: float | None = None,
    bound: float = 0.1,
    accuracy: bool = False,
) -> Result | None:
    """Run a scenario.

    Args:
        samples: feeds for `session.run`, each of one sample; LoadGen draws from them at random.
        logs: an existing folder for LoadGen's own logs (mlperf_log_summary.txt and others).
        scenario: "SingleStream" (one query after the other), "Offline" (all at once) or "Server" (queries at random moments).
        seconds, queries: a run lasts for at least so long and so many; less than 459 queries of Server are never valid.
        batch: how many samples that wait run together, along their first dimension.
        rate: samples a second that Server sends; None: half of what the session can do.
        bound: seconds within which 99 of 100 queries of Server are to be answered.
        accuracy: run every sample once and log its first output (mlperf_log_accuracy.json) instead of measuring.

    Returns: what was measured; None if `accuracy`.
    Raises: MissingDependencyError without mlcommons-loadgen; InvalidInputError for an unknown scenario, no samples, or what
        `session.run` refuses.
    """
    try:
        import mlperf_loadgen as loadgen
    except ImportError:
        raise MissingDependencyError("LoadGen is another package: pip install 'infold[loadgen]'") from None
    if scenario not in SCENARIOS:
        raise InvalidInputError(f"scenario {scenario!r}: one of {', '.join(SCENARIOS)} expected")
    if not samples:
        raise InvalidInputError("LoadGen needs at least one sample")
    one = _seconds(session, samples[:1])  # here, too, inputs are refused: LoadGen passes no exceptions on
    each = min(one, _seconds(session, [samples[0]] * batch) / batch)
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.AccuracyOnly if accuracy else loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms, settings.min_query_count = int(seconds * 1e3), queries
    settings.single_stream_expected_latency_ns = int(one * 0.5e9)  # LoadGen draws its queries ahead, and too few are invalid
    settings.offline_expected_qps = 2 / each
    settings.server_target_qps = 0.5 / each if rate is None else rate
    settings.server_target_latency_ns = int(bound * 1e9)
    log = loadgen.LogSettings()
    log.log_output.outdir = str(logs)
    log.enable_trace = False
    tested = _Tested(session, samples, batch, loadgen)
    library = loadgen.ConstructQSL(len(samples), len(samples), lambda indices: None, lambda indices: None)
    system = loadgen.ConstructSUT(tested.answer if scenario == "SingleStream" else tested.waiting.put, lambda: None)
    try:
        with tested:
            loadgen.StartTestWithLogSettings(system, library, settings, log)
    finally:
        loadgen.DestroySUT(system)
        loadgen.DestroyQSL(library)
    return None if accuracy else _result(scenario, logs / _LOG)


class _Tested:
    """Answers queries: at once, or, within `with`, on a thread of its own in batches of what waits."""

    def __init__(self, session: InferenceSession, samples: Sequence[Mapping[str, np.ndarray]], batch: int, loadgen: object) -> None:
        self.session, self.samples, self.batch, self.loadgen = session, samples, batch, loadgen
        self.waiting: queue.SimpleQueue[list | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._serve, name="infold-loadgen")
        self.failure: Exception | None = None

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.waiting.put(None)
        self.thread.join()
        if self.failure is not None:
            raise self.failure

    def answer(self, asked: list) -> None:
        """Run samples together; a failure is kept, and they count as answered, or LoadGen would wait for ever."""
        outputs: list[np.ndarray] = []
        try:
            if self.failure is None:
                results = self.session.run(None, _together([self.samples[query.index] for query in asked]))[0]
                outputs = [np.ascontiguousarray(part) for part in np.split(results, len(asked))]
        except Exception as failure:
            self.failure = failure
        data = [(part.ctypes.data, part.nbytes) for part in outputs] or [(0, 0)] * len(asked)
        self.loadgen.QuerySamplesComplete(
            [self.loadgen.QuerySampleResponse(query.id, *where) for query, where in zip(asked, data)]
        )

    def _serve(self) -> None:
        while (asked := self.waiting.get()) is not None:
            while len(asked) < self.batch and not self.waiting.empty():
                more = self.waiting.get()
                if more is None:
                    self.waiting.put(None)
                    break
                asked = [*asked, *more]
            for start in range(0, len(asked), self.batch):
                self.answer(asked[start : start + self.batch])


def _seconds(session: InferenceSession, samples: Sequence[Mapping[str, np.ndarray]]) -> float:
    """The shortest of some runs, after the first, which plans."""
    feeds, times = _together(samples), []
    for _ in range(6):
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _together(samples: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if len(samples) == 1:
        return dict(samples[0])
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}


def _result(scenario: str, log: Path) -> Result:
    lines = (line for line in log.read_text().splitlines() if line.startswith(_MARK))
    said = {entry["key"]: entry["value"] for entry in (json.loads(line[len(_MARK) :]) for line in lines)}
    rates = ("result_completed_samples_per_sec", "result_samples_per_second", "result_qps_with_loadgen_overhead")
    percentiles = (said[f"result_{p}_percentile_latency_ns"] * 1e-6 for p in ("50.00", "90.00", "99.00"))
    reason = " ".join(str(said.get(key, "")) for key in ("result_invalid_reason", "early_stopping_result"))
    valid = said["result_validity"] == "VALID"
    rate = next(said[key] for key in rates if key in said)
    mean = said["result_mean_latency_ns"] * 1e-6
    return Result(scenario, valid, "" if valid else " ".join(reason.split()), said["result_query_count"], rate, mean, *percentiles)
