"""Sessions under load: many threads, forks, collection in the middle of it all."""
from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from functools import partial

import numpy as np
import pytest
from session_harness import Net, session, together

from infold import runtime
from infold.errors import ShapeError


def network(size: int = 16, channels: int = 24, depth: int = 4):
    """A small residual network whose input may have any height and width."""
    net = Net(1)
    x = net.input(1, 3, size, size, dims=("n", 3, "h", "w"))
    y = net("Relu", net("Conv", x, net.weight(channels, 3, 3, 3), net.normal(channels), pads=[1] * 4))
    for _ in range(depth):
        z = net("Conv", y, net.weight(channels, 1, 3, 3), net.normal(channels), pads=[1] * 4, group=channels)
        y = net("Relu", net("Add", net("Conv", z, net.weight(channels, channels, 3, 3), pads=[1] * 4), y))
    return net.model(net("Concat", y, net("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4), axis=1)), x


def images(count: int, *sizes: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(1 + i % 2, 3, sizes[i % len(sizes)], sizes[-1 - i % len(sizes)]) for i in range(count)]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("threads", [1, 2])
def test_eight_threads_share_a_session(threads: int):
    """Several shapes at once: plans are made while others run; every result has the bits of a run alone."""
    model, x = network()
    given = images(8, 16, 9, 12)
    expected = [session(model).run(None, {x: image})[0] for image in given]
    subject, start = session(model, threads), threading.Barrier(8)

    def work(first: int) -> None:
        start.wait()
        for i in range(20):
            at = (first + i) % len(given)
            np.testing.assert_array_equal(subject.run(None, {x: given[at]})[0], expected[at])

    together(*(partial(work, i) for i in range(8)))
    assert subject.report.plans == len({image.shape for image in given})


def test_every_number_of_threads_gives_the_same_bits():
    model, x = network(channels=40)
    for image in images(3, 33, 17):
        results = [session(model, threads).run(None, {x: image})[0] for threads in (1, 2, 3, 5, 16)]
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])


def test_sessions_come_and_go_while_others_run():
    model, x = network()
    (image,) = images(1, 16)
    expected = session(model).run(None, {x: image})[0]

    def work() -> None:
        for _ in range(4):
            subject = session(model, 2)
            for _ in range(2):
                np.testing.assert_array_equal(subject.run(None, {x: image})[0], expected)
            del subject
            gc.collect()

    together(work, work, work)


def _in_child(subject, name, image, expected) -> None:
    os._exit(0 if np.array_equal(subject.run(None, {name: image})[0], expected) else 1)


@pytest.mark.timeout(100)
def test_fork_with_a_live_session():
    """Threads do not survive a fork; sessions on both sides do."""
    model, x = network(32, 16)
    subject = session(model, 2)
    (image,) = images(1, 32)
    expected = subject.run(None, {x: image})[0]
    context = multiprocessing.get_context("fork")
    for _ in range(20):
        child = context.Process(target=_in_child, args=(subject, x, image, expected))
        child.start()
        np.testing.assert_array_equal(subject.run(None, {x: image})[0], expected)  # the parent goes on meanwhile
        child.join(30)
        assert child.exitcode == 0, "the child hangs" if child.exitcode is None else "the child's results differ"


@pytest.mark.timeout(100)
def test_fork_while_another_thread_plans(monkeypatch):
    """The child has neither that thread nor its lock."""
    model, x = network(32, 16)
    subject, planning, go_on = session(model, 2), threading.Event(), threading.Event()
    small, large = images(1, 24)[0], images(1, 32)[0]
    expected = {image.shape: subject.run(None, {x: image})[0] for image in (small, large)}
    subject = session(model, 2)
    subject.run(None, {x: large})
    real = runtime.make_plan

    def make_plan(*args):
        planning.set()
        assert go_on.wait(60)
        return real(*args)

    monkeypatch.setattr(runtime, "make_plan", make_plan)
    thread = threading.Thread(target=subject.run, args=(None, {x: small}))
    thread.start()
    assert planning.wait(60)
    monkeypatch.undo()
    children = [multiprocessing.get_context("fork").Process(target=_in_child, args=(subject, x, image, expected[image.shape]))
                for image in (large, small)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        child.kill()
    go_on.set()
    thread.join()
    assert [child.exitcode for child in children] == [0, 0]


@pytest.mark.timeout(60)
def test_memory_of_runs_is_used_again():
    """Runs that follow one another share an arena, whatever their shapes; as many live as ran at once, no more."""
    model, x = network()
    subject = session(model)
    expected = {}
    for size in (16, 8, 24, 16, 8):
        (image,) = images(1, size)
        (found,) = subject.run(None, {x: image})
        np.testing.assert_array_equal(found, expected.setdefault(size, found))
    (arena,) = subject.runner.store.arenas
    assert len(expected) == subject.report.plans and arena.nbytes == max(plan.arena_bytes for plan in subject.runner.plans)


def test_an_error_inside_a_run_leaves_the_session_whole():
    net = Net(2)
    x, shape = net.input(4, 3), net.feed(np.array([2, 6], np.int64))
    subject = session(net.model(net("Relu", net("Reshape", net("Sigmoid", x), net("Abs", shape)))))
    expected = subject.run(None, net.feeds)[0]
    with pytest.raises(ShapeError, match="Reshape"):
        subject.run(None, net.feeds | {shape: np.array([5, 6], np.int64)})
    np.testing.assert_array_equal(subject.run(None, net.feeds)[0], expected)
