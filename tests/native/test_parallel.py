"""The pool of threads: every piece is done once, by as many threads as asked for, and nobody is disturbed meanwhile."""
import os
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infold import _native

TASKS = "import os; from infold import _native; tasks = lambda: len(os.listdir('/proc/self/task')); "


def run_python(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60).stdout.split()


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 64, 256, 300])
def test_every_piece_is_done_once(threads):
    assert _native.dispatch_seconds(threads, 50) > 0  # raises if pieces are missing


def test_callers_from_many_threads():
    def call(count: int) -> None:
        for _ in range(20):
            _native.dispatch_seconds(count, 100)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, (2, 3, 2, 5)))  # raises what a call has raised


def test_no_data_race(tmp_path):
    """ThreadSanitizer finds nothing in the pool, and does find what it is there for: gates that order nothing."""
    source, root = Path(__file__).with_name("races.c"), Path(__file__).parents[2] / "src_c"
    pool = (root / "drivers" / "parallel.c").read_text()
    careless = pool.replace("memory_order_acquire", "memory_order_relaxed").replace(
        "while (atomic_load(&g->value)", "while (atomic_load_explicit(&g->value, memory_order_relaxed)")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")

    def reports(text: str, name: str) -> int:
        (tmp_path / f"{name}.c").write_text(text)
        built = subprocess.run([*compiler, "-std=c11", "-g", "-O1", "-fsanitize=thread", f"-I{root}", tmp_path / f"{name}.c",
                                source, "-o", tmp_path / name, "-pthread", "-lm"], capture_output=True, text=True)
        if built.returncode:
            pytest.skip(f"no ThreadSanitizer: {built.stderr[-200:]}")
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        done = subprocess.run([tmp_path / name], capture_output=True, text=True, timeout=60, env=environment)
        assert done.stdout.strip() == "done", done.stderr
        return done.stderr.count("WARNING: ThreadSanitizer")

    assert reports(pool, "pool") == 0
    assert careless != pool and reports(careless, "careless") > 0


def test_one_thread_starts_no_other():
    code = TASKS + """
before = tasks()
_native.dispatch_seconds(1, 10)
print(tasks() - before)
_native.dispatch_seconds(3, 10)
print(tasks() - before)"""
    assert run_python(code) == ["0", "2"]


def test_a_fault_in_a_worker_is_told():
    """Workers leave signals to the program's threads, but for those that their own instructions raise: faulthandler shows where."""
    code = TASKS + """
import signal, time
_native.dispatch_seconds(2, 10)  # which does not wait for a worker that has not begun; until then all signals are blocked
worker, deadline = max(map(int, os.listdir('/proc/self/task'))), time.monotonic() + 20
def mask():
    lines = open(f'/proc/self/task/{worker}/status').read().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith('SigBlk'))
while (blocked := mask()) >> signal.SIGSEGV - 1 & 1 and time.monotonic() < deadline:
    time.sleep(0.01)
numbers = signal.SIGINT, signal.SIGTERM, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE
print(*(blocked >> number - 1 & 1 for number in numbers))"""
    assert run_python(code) == ["1", "1", "0", "0", "0", "0"]


def test_waiting_threads_sleep():
    code = TASKS + """
import time
_native.dispatch_seconds(2, 10)
before = time.process_time()
time.sleep(0.3)
print(time.process_time() - before)"""
    assert float(run_python(code)[0]) < 0.1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_pool_of_its_own():
    code = TASKS + """
_native.dispatch_seconds(3, 10)
child = os.fork()
before = tasks()
_native.dispatch_seconds(3, 10)
if child == 0:
    os._exit(10 * before + tasks())  # one thread, then three
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""
    assert run_python(code) == ["13"]


def test_threads_on_one_cpu():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity here")
    code = TASKS + "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(_native.dispatch_seconds(4, 200))"
    assert float(run_python(code)[0]) < 0.02  # nobody spins while another needs the CPU
