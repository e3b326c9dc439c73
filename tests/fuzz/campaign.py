"""Runs mutants by the million: `python tests/fuzz/campaign.py --minutes 10`.

Every harness is a fork server: its seeds are made once, then a worker process is forked that tries mutant after mutant. Mutant
number i of a harness is drawn from a generator seeded with the harness's name and i, so that any one can be made again
(`--again NAME:I`). The worker tells through shared memory where it is; if it dies or is stuck, that mutant is counted with
the reason, and a new worker goes on behind it. Counts are kept in a JSON file and grow from campaign to campaign.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import mmap
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "importers")]

CLEAN = ("refused", "loaded", "ran equal", "ran without a second opinion", "second opinion failed")
UNCLEAN = ("differs", "untyped error", "out of memory", "crash", "hang")
OUTCOMES = (*CLEAN, *UNCLEAN)
CPU_SECONDS = 5  # that one mutant may take
WALL_SECONDS = 120  # without progress: a deadlock
MEMORY = 3 << 30  # bytes that a worker may map beyond what it had at its fork
STATE = Path(__file__).parents[2] / "build" / "fuzz.json"


class Harness:
    """Seeds made once, and a trial of one mutant that returns (outcome, detail). `phase` tells whose turn it is."""

    name = ""

    def prepare(self) -> None:
        """Make the seeds."""

    def trial(self, rng: random.Random, second_opinion: Callable[[], None]) -> tuple[str, str]:
        """Draw a mutant and try it. `second_opinion` is called before other software than infold gets it."""
        raise NotImplementedError

    def run(self, index: int, second_opinion: Callable[[], None] = lambda: None) -> tuple[str, str]:
        from infold.errors import Error

        try:
            return self.trial(random.Random(f"{self.name}/{index}"), second_opinion)
        except Error as error:
            return ("refused", str(error)) if str(error) else ("untyped error", f"{type(error).__name__} without a message")
        except MemoryError:
            return "out of memory", traceback.format_exc(limit=-6)
        except Exception:
            return "untyped error", traceback.format_exc(limit=-8)


class Campaign:
    """Tries mutants first, first+1, ... of a harness."""

    def __init__(self, harness: Harness, log: Path | None = None) -> None:
        self.harness, self.log = harness, log
        self.shared = np.frombuffer(mmap.mmap(-1, 4096), np.int64)  # the mutant in work, the phase, then a counter per outcome
        self.unclean: list[dict] = []

    @property
    def counts(self) -> dict[str, int]:
        return {name: int(n) for name, n in zip(OUTCOMES, self.shared[2:])}

    def run(self, first: int, seconds: float, count: int | None = None) -> int:
        """Returns the number of the first mutant not tried."""
        self.shared[0], end = first, time.monotonic() + seconds
        last = first + count if count is not None else 1 << 62
        while self.shared[0] < last and time.monotonic() < end:
            self._worker(last, end)
        return int(self.shared[0])

    def _worker(self, last: int, end: float) -> None:
        begun, notes = int(self.shared[0]), tempfile.TemporaryFile()  # noqa: SIM115 closed with the worker
        child = os.fork()
        if child == 0:
            self._work(notes, last, end)
        seen, since = -1, time.monotonic()
        while (status := _wait(child)) is None:
            time.sleep(0.05)
            if self.shared[0] != seen:
                seen, since = int(self.shared[0]), time.monotonic()
            if time.monotonic() - since > WALL_SECONDS:
                os.kill(child, signal.SIGKILL)
                status = os.waitpid(child, 0)[1]
                break
        with notes:
            notes.seek(0)
            for line in notes.read().splitlines():
                self._note(**json.loads(line))
        if status == 0:
            return
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        outcome = "hang" if number in (signal.SIGPROF, signal.SIGKILL) else "crash"
        if self.shared[1] == 1:
            outcome = "second opinion failed"
        self.shared[2 + OUTCOMES.index(outcome)] += 1
        if outcome in UNCLEAN:
            self._note(int(self.shared[0]), outcome, f"status {status}, worker forked at {begun}")
        self.shared[0] += 1

    def _work(self, notes: BinaryIO, last: int, end: float) -> None:
        """The life of a worker; never returns."""
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
            if used < 1 << 40:  # AddressSanitizer maps terabytes
                resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            faulthandler.disable()
            os.dup2(os.open(self.log or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
            shared = self.shared

            def second_opinion() -> None:
                shared[1] = 1

            while shared[0] < last and time.monotonic() < end:
                index, shared[1] = int(shared[0]), 0
                signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
                outcome, detail = self.harness.run(index, second_opinion)
                signal.setitimer(signal.ITIMER_PROF, 0)
                shared[2 + OUTCOMES.index(outcome)] += 1
                if outcome in UNCLEAN:
                    notes.write(json.dumps({"index": index, "outcome": outcome, "detail": detail[-3000:]}).encode() + b"\n")
                    notes.flush()
                shared[0] += 1
                if outcome == "out of memory":
                    break
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def _note(self, index: int, outcome: str, detail: str) -> None:
        self.unclean.append({"mutant": f"{self.harness.name}:{index}", "outcome": outcome, "detail": detail})


def _wait(child: int) -> int | None:
    done, status = os.waitpid(child, os.WNOHANG)
    return status if done else None


def harnesses() -> dict[str, Harness]:
    import formats
    import graphs

    return {harness.name: harness for module in (formats, graphs) for harness in module.harnesses()}


def _update(path: Path, name: str, first: int, campaign: Campaign) -> None:
    """Add what a campaign found to the books."""
    state = json.loads(path.read_text()) if path.exists() else {}
    entry = state.setdefault(name, {"next": 0, "outcomes": {}, "unclean": []})
    entry["next"] = max(entry["next"], first)
    for outcome, count in campaign.counts.items():
        entry["outcomes"][outcome] = entry["outcomes"].get(outcome, 0) + count
    entry["unclean"] = (entry["unclean"] + campaign.unclean)[-200:]
    campaign.shared[2:] = 0
    campaign.unclean = []
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(state, indent=1))
    partial.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of all harnesses together")
    parser.add_argument("--harness", action="append", help="only this one (may be repeated)")
    parser.add_argument("--state", type=Path, default=STATE)
    parser.add_argument("--round", type=float, default=30, help="seconds a harness runs before it is the next one's turn")
    parser.add_argument("--list", action="store_true", help="name the harnesses")
    parser.add_argument("--again", metavar="NAME:I", help="try one mutant in this process and show what happens")
    options = parser.parse_args()
    known = harnesses()
    if options.list:
        print(*known, sep="\n")
        return 0
    if options.again:
        name, _, index = options.again.partition(":")
        known[name].prepare()
        print(*known[name].run(int(index)), sep="\n")
        return 0
    chosen = [known[name] for name in options.harness or known]
    for harness in chosen:
        harness.prepare()
    options.state.parent.mkdir(parents=True, exist_ok=True)  # the workers' log lies there too
    end, total = time.monotonic() + 60 * options.minutes, 0
    while (left := end - time.monotonic()) > 0:
        for harness in chosen:
            state = json.loads(options.state.read_text()) if options.state.exists() else {}
            first = state.get(harness.name, {}).get("next", 0)
            campaign = Campaign(harness, options.state.with_suffix(".log"))
            after = campaign.run(first, min(left, options.round))
            found = [u for u in campaign.unclean]
            total += len(found)
            print(harness.name, after - first, {k: v for k, v in campaign.counts.items() if v}, flush=True)
            for item in found:
                print(json.dumps(item), flush=True)
            _update(options.state, harness.name, after, campaign)
    state = json.loads(options.state.read_text())
    sums = {o: sum(e["outcomes"].get(o, 0) for e in state.values()) for o in OUTCOMES}
    print("all campaigns:", sum(sums.values()), "mutants", {k: v for k, v in sums.items() if v})
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
