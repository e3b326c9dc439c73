"""Sessions under load. Each scenario does its work `count` times, asserts that all went well, and returns what it counted."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import multiprocessing
import os
import random
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from random_networks import random_network
from session_harness import together

import infold
from infold import _native
from infold.errors import Error


def make(seed: int, nodes: int = 12, size: int = 9, **options) -> tuple[onnx.ModelProto, dict, infold.InferenceSession]:
    """A random network, an input for it, and a session."""
    model, feeds = random_network(random.Random(seed), nodes, size)
    return model, feeds, infold.InferenceSession(model, infold.SessionOptions(intra_op_num_threads=1, **options))


def same(found: list, expected: list) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))


def threads(count: int, seed: int = 0, workers: int = 6) -> dict[str, int]:
    """`count` networks, several at a time: threads take any of the sessions in any order, and get the bits of a run alone, with
    one thread and with two; sessions are dropped and collected meanwhile."""
    wrong, runs = [], Counter()
    for first in range(seed, seed + count, 3):
        cases = []
        for number in range(first, min(first + 3, seed + count)):
            model, feeds, session = make(number)
            two = infold.InferenceSession(model, infold.SessionOptions(intra_op_num_threads=2))
            cases.append((feeds, session.run(None, feeds), [session, two]))

        def work(number: int, cases=cases) -> None:
            rng = random.Random(number)
            for _ in range(8):
                feeds, expected, sessions = rng.choice(cases)
                if not same(rng.choice(sessions).run(None, feeds), expected):
                    wrong.append(number)
                runs["runs"] += 1
                if rng.random() < 0.1:
                    gc.collect()

        together(*(lambda number=first * workers + i: work(number) for i in range(workers)))
    assert not wrong
    return {"networks": count, "runs": runs["runs"]}


def _child(session, feeds, expected) -> None:
    os._exit(0 if same(session.run(None, feeds), expected) else 1)


def forks(count: int) -> dict[str, int]:
    """Processes forked while sessions live and another thread runs one: the child's run and the parent's have the same bits.

    torch is there with threads of its own, if it is installed.
    """
    if importlib.util.find_spec("torch") is not None:
        torch = importlib.import_module("torch")
        torch.ones(300, 300) @ torch.ones(300, 300)
    model, feeds, _ = make(3, size=24)
    session = infold.InferenceSession(model, infold.SessionOptions(intra_op_num_threads=2))
    expected, stop = session.run(None, feeds), threading.Event()
    context = multiprocessing.get_context("fork")

    def keep_busy() -> None:
        while not stop.is_set():
            assert same(session.run(None, feeds), expected)

    def fork() -> None:
        try:
            for _ in range(count):
                child = context.Process(target=_child, args=(session, feeds, expected))
                child.start()
                child.join(60)
                assert child.exitcode == 0, "the child hangs" if child.exitcode is None else "the child's results differ"
        finally:
            stop.set()

    together(keep_busy, fork)
    return {"forks": count}


def interrupts(count: int) -> dict[str, float]:
    """Ctrl-C in the first half of a run: KeyboardInterrupt, and the session works afterwards. Call in the main thread.

    That a run ends early is seen by its outputs, which nobody has written, not by a clock; the delays are only told.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process starts with it ignored
    model, feeds, session = make(8, 40, 600)
    expected, rng, delays, early = session.run(None, feeds), random.Random(1), [], 0
    out = {value.name: array.copy() for value, array in zip(model.graph.output, expected)}
    began = time.monotonic()
    session.run(None, feeds)
    long = time.monotonic() - began
    while len(delays) < count or (not early and len(delays) < count + 100):  # one may always come late
        fired = []

        def interrupt(fired=fired) -> None:
            fired.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(rng.random() * long / 2, interrupt)
        try:
            timer.start()
            while True:
                for array in out.values():
                    array[...] = 0
                session.run(None, feeds, out=out)
        except KeyboardInterrupt:
            delays.append(time.monotonic() - fired[0])
        timer.join()
        early += not same(list(out.values()), expected)
        assert same(session.run(None, feeds), expected)
    assert early, "no run ended before its end"
    return {"interrupts": len(delays), "runs left early": early, "ms of a run": 1e3 * long,
            "median ms": 1e3 * float(np.median(delays)), "largest ms": 1e3 * max(delays)}


def allocations(count: int) -> dict[str, int]:
    """Each of the first `count` allocations of Python objects in a run fails once: MemoryError, and the next run is right.

    `_testcapi` belongs to CPython's own tests; a build without it has nothing to inject with.
    """
    import _testcapi

    _, feeds, session = make(5)
    expected, failed = session.run(None, feeds), 0
    for allocation in range(count):
        try:
            _testcapi.set_nomemory(allocation, allocation + 1)
            found = session.run(None, feeds)
            _testcapi.remove_mem_hooks()
        except MemoryError:
            _testcapi.remove_mem_hooks()
            failed += 1
        else:
            assert same(found, expected)
        finally:
            _testcapi.remove_mem_hooks()
        assert same(session.run(None, feeds), expected)
    return {"allocation failures": failed}


def arenas(count: int) -> dict[str, int]:
    """Each memory block that planning and a first run ask for is refused once: a typed MemoryError, and the next try is right."""
    model, feeds, session = make(6, 20)
    expected, refused, real = session.run(None, feeds), 0, _native.Arena
    for number in range(count):
        asked = iter(range(1 << 30))

        def arena(nbytes: int, asked=asked, number=number):
            if next(asked) == number:
                raise MemoryError(f"cannot allocate an arena of {nbytes} bytes")
            return real(nbytes)

        _native.Arena = arena
        try:
            session = infold.InferenceSession(model, infold.SessionOptions(intra_op_num_threads=1))
            found = session.run(None, feeds)
        except MemoryError as error:
            assert isinstance(error, Error)
            refused += 1
        else:
            assert same(found, expected)
            if next(asked) <= number:
                break
        finally:
            _native.Arena = real
        assert same(infold.InferenceSession(model, session.options).run(None, feeds), expected)
    return {"refused blocks": refused}


def native_allocations(count: int) -> dict[str, int]:
    """Each of the first `count` allocations of the native module itself (steps, arenas, buffers) fails once, while a session is
    made and run: a typed MemoryError, the next try is right, and in the end the module holds what it held.

    Only under tests/load/failing.c (see `run_failing`).
    """
    library = ctypes.CDLL(None)
    library.failing_at.argtypes = [ctypes.c_long]
    library.failing_watch.argtypes = [ctypes.c_ulong] * 2
    library.failing_seen.restype = library.failing_held.restype = ctypes.c_long
    maps = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(_native.__file__)]
    library.failing_watch(int(maps[0].split("-")[0], 16), int(maps[-1].split("-")[1], 16))
    model, feeds = random_network(random.Random(6), 10, 12)
    failures = 0

    def once() -> list:
        return infold.InferenceSession(model, infold.SessionOptions(intra_op_num_threads=3)).run(None, feeds)

    expected = once()
    gc.collect()
    held = library.failing_held()
    for number in range(count):
        library.failing_at(number)
        try:
            found = once()
        except MemoryError as error:
            assert isinstance(error, Error) and "no memory for" in str(error)
            failures += 1
        else:
            assert same(found, expected) and library.failing_seen() <= number
            break
        finally:
            library.failing_at(-1)
        assert same(once(), expected)
        gc.collect()
        assert library.failing_held() == held, "memory is lost"
    return {"native allocation failures": failures}


def run_alone(name: str, count: int, **environment: str) -> dict[str, float]:
    """What a scenario counted in a process of its own."""
    code = f"import sys; sys.path[:0] = {sys.path!r}; import json, scenarios; print(json.dumps(scenarios.{name}({count})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_failing(count: int) -> dict[str, float]:
    """`native_allocations` under the library that makes them fail."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "failing.so"
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        source = Path(__file__).with_name("failing.c")
        subprocess.run([*compiler, "-std=gnu11", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        return run_alone("native_allocations", count, LD_PRELOAD=str(library))


def changing_inputs(count: int) -> dict[str, int]:
    """The inputs' numbers and the model's file change while runs go on: results may be of either, nothing breaks."""
    rng = np.random.default_rng(0)
    for seed in range(count):
        _, feeds, session = make(seed, 10, 16)
        shapes, stop = [y.shape for y in session.run(None, feeds)], threading.Event()

        def scribble(feeds=feeds, stop=stop) -> None:
            while not stop.is_set():
                for array in feeds.values():
                    array[...] = rng.choice([np.nan, np.inf, -1e30, 0.0])

        def run(feeds=feeds, stop=stop, session=session, shapes=shapes) -> None:
            try:
                for _ in range(20):
                    assert [y.shape for y in session.run(None, feeds)] == shapes
            finally:
                stop.set()

        together(scribble, run)
    return {"networks with changing inputs": count}


SCENARIOS = (threads, forks, interrupts, allocations, arenas, run_failing, changing_inputs)
