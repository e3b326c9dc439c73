"""The scenarios of `make soak` in small, and what a run may not leave behind in the process."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import scenarios
from session_harness import Net, session

COUNTS = {"threads": 6, "forks": 15, "interrupts": 5, "allocations": 60, "arenas": 40, "run_failing": 200, "changing_inputs": 3}


def test_every_scenario_is_run():
    assert COUNTS.keys() == {scenario.__name__ for scenario in scenarios.SCENARIOS}


@pytest.mark.timeout(200)
@pytest.mark.parametrize("scenario", scenarios.SCENARIOS, ids=lambda s: s.__name__)
def test_scenario(scenario):
    if scenario is scenarios.allocations and importlib.util.find_spec("_testcapi") is None:
        pytest.skip("this Python has no _testcapi")
    count = COUNTS[scenario.__name__]
    # Ctrl-C in a process of its own: one that comes a moment early or late would end the test runner
    counted = scenarios.run_alone("interrupts", count) if scenario is scenarios.interrupts else scenario(count)
    assert counted and all(counted.values()), counted


@pytest.mark.parametrize("threads", [1, 2])
def test_denormal_numbers_are_numbers(threads: int):
    """They are not flushed to zero, in no thread, and whoever wants them flushed in his own thread finds it so after a run."""
    torch = pytest.importorskip("torch")
    net = Net(0)
    x = net.input(1, 4, 64, 64)
    net.feeds[x][...] = 1e-41
    subject = session(net.model(net("Mul", x, net.constant(np.full((1, 4, 1, 1), 2, np.float32)))), threads)
    tiny = np.float32(1e-41)
    np.testing.assert_array_equal(subject.run(None, net.feeds)[0], tiny + tiny)
    assert tiny + tiny > 0
    try:
        assert torch.set_flush_denormal(True) and not (torch.tensor([1e-41]) * 2).any()
        for number in (threads, 9):  # for the latter the pool starts workers in the middle of it
            fresh = session(net.model("v3"), number)
            np.testing.assert_array_equal(fresh.run(None, net.feeds)[0], tiny + tiny, "the run computed as its caller does")
            assert not (torch.tensor([1e-41]) * 2).any(), "the run changed how its caller computes"
    finally:
        torch.set_flush_denormal(False)
    np.testing.assert_array_equal(subject.run(None, net.feeds)[0], tiny + tiny)


def test_a_second_interpreter_is_refused():
    code = """if True:
        try:
            import _interpreters as interpreters
        except ImportError:  # before CPython 3.13
            import _xxsubinterpreters as interpreters
        import numpy as np, infold
        from infold import _native
        other = interpreters.create()
        interpreters.run_string(other, '''if True:
            try:
                import infold; infold.InferenceSession
            except ImportError as error:
                print(error, flush=True)
            ''')
        interpreters.destroy(other)
        print("alive", _native.Arena(1).nbytes)
    """
    if not any(map(importlib.util.find_spec, ("_interpreters", "_xxsubinterpreters"))):
        pytest.skip("this Python has no interface to sub-interpreters")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    refusal, alive = done.stdout.splitlines()
    assert "into one interpreter per process" in refusal or "does not support loading in subinterpreters" in refusal
    assert alive == "alive 1"
