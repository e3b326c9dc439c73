"""Requests that run together have the bits that they have alone; the queue has an end; nobody waits for ever."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from session_harness import Net

import infold
from infold.integrations.serve.batching import Batcher, OverloadedError

LENET = files("infold.demo") / "lenet.onnx"


def batched(net: Net, output: str, dims: tuple, kind: int | None = None) -> infold.InferenceSession:
    """A session of a model whose output is declared with these dimensions."""
    model = net.model(output, types=None if kind is None else {output: kind})
    model.graph.outputs[0].shape = ir.Shape(dims)
    return infold.InferenceSession(model)


def at_once(batcher: Batcher, feeds: list[dict]) -> list:
    """What all requests get that are made before the first one runs; exceptions included."""

    async def ask() -> list:
        return await asyncio.wait_for(asyncio.gather(*(batcher.run(one) for one in feeds), return_exceptions=True), 60)

    return asyncio.run(ask())


def images(count: int, rows: int = 1) -> list[dict]:
    return [{"image": image} for image in np.random.default_rng(3).normal(size=(count, rows, 1, 28, 28)).astype(np.float32)]


def same(results: list[dict], session: infold.InferenceSession, feeds: list[dict]) -> None:
    names = [output.name for output in session.get_outputs()]
    for result, one in zip(results, feeds, strict=True):
        for name, expected in zip(names, session.run(None, one), strict=True):
            np.testing.assert_array_equal(result[name], expected)
            assert expected.any()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_requests_that_wait_run_together(rows: int):
    session = infold.InferenceSession(LENET)
    batcher, feeds = Batcher(session), images(13, rows)
    assert batcher.prepare() == [2, 4, 8]
    same(at_once(batcher, feeds), session, feeds)
    assert batcher.requests == 13 and batcher.runs == {1: 1 + 1 + 1, 2: 3 + 1, 3: 6 + 1}[rows], "8+4+1; 4+4+4+1; pairs"


def test_different_shapes_run_apart():
    session = infold.InferenceSession(LENET)
    batcher, feeds = Batcher(session), [one for pair in zip(images(4, 1), images(4, 2)) for one in pair]
    same(at_once(batcher, feeds), session, feeds)
    assert batcher.runs == 2


def test_a_model_whose_rows_change_runs_alone():
    net = Net()
    x = net.input(1, 6, dims=("N", 6))
    session = batched(net, net("Add", x, net("ReduceMean", x, net.ints(0), keepdims=1)), ("N", 6))
    batcher = Batcher(session)
    feeds = [{x: one} for one in np.random.default_rng(1).normal(size=(5, 1, 6)).astype(np.float32)]
    assert batcher.max_batch == 8 and batcher.prepare() == []
    same(at_once(batcher, feeds), session, feeds)
    assert batcher.runs == 5


def test_results_that_say_nothing_prove_nothing():
    net = Net()
    x = net.input(1, 6, dims=("N", 6))
    assert Batcher(batched(net, net("ArgMax", x, axis=1), ("N", 1), onnx.TensorProto.INT64)).prepare() == []
    net = Net()
    x = net.input(1, 6, dims=("N", 6))
    assert Batcher(batched(net, net("Mul", x, net.constant(np.zeros(6, np.float32))), ("N", 6))).prepare() == []


@pytest.mark.parametrize("dims", [((1, 6), (1, 6)), (("N", 6), ("M", 6))])
def test_only_one_open_first_dimension_makes_rows(dims: tuple):
    net = Net()
    x = net.input(1, 6, dims=dims[0])
    assert Batcher(batched(net, net("Relu", x), dims[1])).max_batch == 1


def test_a_request_at_fault_fails_alone():
    net = Net()
    x = net.feed(np.zeros((1, 1), np.int64), ("N", 1))
    y = net("Squeeze", net("Gather", net.normal(4, 3), x), net.ints(1))
    session = batched(net, y, ("N", 3))
    batcher = Batcher(session)
    feeds = [{x: np.array([[index]], np.int64)} for index in (1, 3, 7, 2)]
    assert batcher.prepare() == [2, 4, 8]
    results = at_once(batcher, feeds)
    assert isinstance(results.pop(2), infold.Error)
    same(results, session, [feeds[0], feeds[1], feeds[3]])


def test_whatever_goes_wrong_is_told_to_who_asked(monkeypatch: pytest.MonkeyPatch):
    session = infold.InferenceSession(LENET)
    batcher, feeds = Batcher(session), images(2)
    with monkeypatch.context() as broken:
        broken.setattr(session, "run", lambda *_: 1 / 0)
        assert [type(result) for result in at_once(batcher, feeds)] == [ZeroDivisionError] * 2
    same(at_once(batcher, feeds), session, feeds)


def test_an_optional_input_goes_alone():
    net = Net()
    x, scale = net.input(1, 6, dims=("N", 6)), net.constant(np.float32(2))
    model = net.model(y := net("Mul", net("Exp", x), scale))
    model.graph.outputs[0].shape = ir.Shape(("N", 6))
    model.graph.inputs.append(model.graph.initializers[scale])
    session = infold.InferenceSession(model)
    batcher, given = Batcher(session), np.random.default_rng(2).normal(size=(6, 1, 6)).astype(np.float32)
    feeds = [{x: one} for one in given[:4]] + [{x: one, scale: np.float32(3 + i)} for i, one in enumerate(given[4:])]
    assert batcher.max_batch == 8 and y in session.outputs
    same(at_once(batcher, feeds), session, feeds)
    assert batcher.runs == 3


def test_random_inputs_that_the_model_refuses_do_not_stop_the_start():
    net = Net()
    x = net.feed(np.zeros((1, 1), np.int64), ("N", 1))
    session = batched(net, net("Squeeze", net("Gather", net.normal(1, 3), x), net.ints(1)), ("N", 3))
    with pytest.raises(infold.Error):
        session.run(None, {x: np.ones((1, 1), np.int64)})
    batcher = Batcher(session)
    assert batcher.max_batch == 8 and batcher.prepare() == []
    same(at_once(batcher, [{x: np.zeros((1, 1), np.int64)}] * 3), session, [{x: np.zeros((1, 1), np.int64)}] * 3)


def test_who_has_gone_takes_no_place():
    batcher, feeds = Batcher(infold.InferenceSession(LENET), max_queue=2), images(4)

    async def ask() -> list:
        gone = [asyncio.create_task(batcher.run(one)) for one in feeds[:2]]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        batcher.refuse_more()
        return await asyncio.gather(*(batcher.run(one) for one in feeds[2:]))

    same(asyncio.run(ask()), batcher.session, feeds[2:])


def test_a_full_queue_refuses_and_goes_on():
    session = infold.InferenceSession(LENET)
    batcher, feeds = Batcher(session, max_queue=3), images(5)
    results = at_once(batcher, feeds)
    assert [isinstance(result, OverloadedError) for result in results] == [False] * 3 + [True] * 2
    same(results[:3], session, feeds[:3])
    same(at_once(batcher, feeds[3:]), session, feeds[3:])


def test_one_after_the_other_without_a_pause():
    batcher, feeds = Batcher(infold.InferenceSession(LENET)), images(1)

    async def ask() -> None:
        for _ in range(5):
            await asyncio.wait_for(batcher.run(feeds[0]), 60)

    asyncio.run(ask())
    assert batcher.requests == batcher.runs == 5


def test_who_has_gone_is_not_computed():
    batcher, feeds = Batcher(infold.InferenceSession(LENET), max_batch=1), images(3)

    async def ask() -> None:
        tasks = [asyncio.create_task(batcher.run(one)) for one in feeds]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(ask())
    assert batcher.requests == 2


def test_a_wait_fills_the_batch():
    session = infold.InferenceSession(LENET)
    batcher, feeds = Batcher(session, wait=0.5), images(4)

    async def ask() -> list:
        first = asyncio.create_task(batcher.run(feeds[0]))
        await asyncio.sleep(0.01)
        return await asyncio.gather(first, *(batcher.run(one) for one in feeds[1:]))

    batcher.prepare()
    same(asyncio.run(ask()), session, feeds)
    assert batcher.runs in (1, 2), "the second only if this machine stopped for half a second"


def test_compiled_files_make_the_batches_they_have_plans_for(tmp_path: Path):
    shapes = [{"image": (rows, 1, 28, 28)} for rows in (1, 2, 4)]
    infold.compile(LENET, tmp_path / "lenet.infold", shapes)
    session = infold.InferenceSession(tmp_path / "lenet.infold")
    batcher, feeds = Batcher(session), images(7)
    assert batcher.prepare() == [2, 4]
    same(at_once(batcher, feeds), infold.InferenceSession(LENET), feeds)
    assert batcher.runs == 3
