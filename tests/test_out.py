"""`run(out=...)`: outputs written to the caller's arrays, with the bits of an ordinary run, or refused in words."""
from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from random_networks import random_network
from session_harness import Net, session

import infold
from infold.errors import InvalidInputError


def receivers(expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of the outputs' shapes, full of what no output holds."""
    return {name: np.full(value.shape, 77, value.dtype) for name, value in expected.items()}


def check(subject: infold.InferenceSession, feeds: dict[str, np.ndarray]) -> None:
    """Twice into the same arrays, all of them and each alone: bitwise the results of an ordinary run."""
    names = [o.name for o in subject.get_outputs()]
    expected = dict(zip(names, subject.run(None, feeds)))
    arrays = receivers(expected)
    for out in [arrays, arrays, *({name: receivers(expected)[name]} for name in names)]:
        for name, found in zip(names, subject.run(names, feeds, out=out)):
            assert name not in out or found is out[name]
            assert found.tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("seed", range(0, 40, 3))
def test_the_bits_of_an_ordinary_run(seed):
    model, feeds = random_network(random.Random(seed), nodes=12)
    for threads in (1, 2):
        check(session(model, threads), feeds)


def test_outputs_that_no_step_writes():
    """A constant, an input that is an output, a value of the fallback, and one behind a cut of the plan."""
    net = Net(0)
    x = net.input(2, 3, 4)
    rows = net("Transpose", net("NonZero", net("Greater", x, net.constant(np.float32(0)))), perm=[1, 0])
    outputs = [net("Identity", net.normal(3)), x, net("Bernoulli", net("Mul", x, net.constant(np.float32(0)))), rows,
               net("GatherND", x, rows)]
    check(session(net.model(*outputs, types={rows: onnx.TensorProto.INT64})), net.feeds)


def test_compiled_models(tmp_path):
    model, feeds = random_network(random.Random(4), nodes=8)
    infold.compile(model, tmp_path / "m.infold")
    check(infold.InferenceSession(tmp_path / "m.infold"), feeds)


@pytest.fixture
def subject():
    net = Net(1)
    x = net.input(1, 4, 6, 6, dims=("n", 4, "h", "w"))
    y = net("Conv", x, net.weight(4, 4, 3, 3), pads=[1] * 4)
    return session(net.model(y, net("Relu", y))), net.feeds, [y, "v4"]


def test_an_output_that_overwrites_its_input(subject):
    """Layer after layer in one array: each reads what the one before has written."""
    subject, feeds, (y, _) = subject
    x = next(iter(feeds))
    once = subject.run([y], feeds)[0]
    twice = subject.run([y], {x: once})[0]
    array = feeds[x].copy()
    subject.run([y], {x: array}, out={y: array})
    np.testing.assert_array_equal(array, once)
    whole = np.zeros((2, *array.shape), np.float32)  # two arrays that overlap in part
    target = whole.reshape(-1)[40:40 + array.size].reshape(array.shape)
    whole[0] = once
    subject.run([y], {x: whole[0]}, out={y: target})
    np.testing.assert_array_equal(target, twice)


def test_arrays_that_do_not_fit(subject):
    subject, feeds, (y, relu) = subject
    shape, good = (1, 4, 6, 6), np.zeros((1, 4, 6, 6), np.float32)
    frozen = good.copy()
    frozen.flags.writeable = False
    odd = np.zeros(good.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(shape)
    cases = [
        ({"nobody": good}, "no output named 'nobody'"), ({y: good.astype(np.float64)}, f"out.{y!r}.*float32 of shape.*got float64"),
        ({y: good[..., :5].copy()}, r"shape \[1, 4, 6, 6\] expected, got float32 of \[1, 4, 6, 5\]"),
        ({y: good.reshape(-1)}, r"got float32 of \[144\]"), ({y: frozen}, "writable"), ({y: odd}, "aligned"),
        ({y: np.asfortranarray(np.zeros(shape, np.float32))}, "row-major"),
        ({y: np.zeros((1, 4, 6, 12), np.float32)[..., ::2]}, "row-major"),
        ({y: good.astype(">f4")}, "byte order"), ({y: good.tolist()}, "list"), ({y: good, relu: good}, "share memory"),
        ({y: (both := np.zeros(200, np.float32))[:144].reshape(shape), relu: both[56:].reshape(shape)}, "share memory"),
    ]
    before = subject.run(None, feeds)
    for out, says in cases:
        with pytest.raises(InvalidInputError, match=says):
            subject.run(None, feeds, out=out)
    for a, b in zip(subject.run(None, feeds, out={y: good}), before):
        np.testing.assert_array_equal(a, b)


def test_an_output_that_is_no_array():
    net = Net(0)
    x = net.input(2, 3)
    made = net("SequenceConstruct", x, x)
    model = onnx.helper.make_model(onnx.helper.make_graph(
        net.nodes, "g", [onnx.helper.make_tensor_value_info(x, 1, [2, 3])],
        [onnx.helper.make_tensor_sequence_value_info(made, 1, None)]),
        opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(InvalidInputError, match="is a list, not an array"):
        session(model).run(None, net.feeds, out={made: np.zeros((2, 3), np.float32)})
