"""Plans: cut where data decides, cached per shape, bounded in memory, with the reference evaluator between native steps."""
from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from session_harness import Net, check, session, together

from infold import runtime
from infold.errors import InvalidInputError, MemoryLimitError, ShapeError, UnsupportedError


def body(nodes, inputs=(), outputs=(), name="body") -> onnx.GraphProto:
    """A subgraph; outputs as (name, element type)."""
    return helper.make_graph(nodes, name, [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
                             [helper.make_tensor_value_info(n, t, None) for n, t in outputs])


def test_a_shape_computed_from_data_cuts_the_plan():
    """Reshape to a shape that is read off the input's values; what follows is planned when it is known, and planned again for
    others."""
    net = Net(1)
    x, target = net.input(2, 6, 4, 4), net.feed(np.array([4, 3, 16], np.int64))
    y = net("Conv", x, net.weight(6, 6, 3, 3), pads=[1] * 4)
    shape = net("Cast", net("Abs", net("Cast", target, to=TensorProto.FLOAT)), to=TensorProto.INT64)
    z = net("MatMul", net("Relu", net("Reshape", y, shape)), net.normal(16, 5))
    subject = check(net, z, y, native=False)
    for other in ([2, 6, 16], [12, 1, 16]):
        assert subject.run([z], net.feeds | {target: np.array(other, np.int64)})[0].shape == (*other[:2], 5)
    assert subject.run([z], net.feeds)[0].shape == (4, 3, 5)


@pytest.mark.parametrize("k", [1, 3])
def test_sizes_that_only_the_run_knows(k: int):
    """NonZero, then TopK: Gather what was found and go on natively."""
    net = Net(2)
    x = net.input(9, 8)
    score = net("ReduceMax", net("MatMul", x, net.normal(8, 4)), net.ints(1), keepdims=0)
    kept = net("Squeeze", net("Transpose", net("NonZero", net("Greater", score, net.constant(np.float32(0.5))))), net.ints(1))
    rows = net("Gather", x, kept, axis=0)
    count = net("Min", net("Shape", kept), net.ints(k))
    values, _ = net("TopK", net("MatMul", rows, net.normal(8, 3)), count, axis=0, outputs=2)
    check(net, net("Gemm", values, net.normal(3, 7), net.normal(7)), native=False)


def test_the_number_found_may_be_zero():
    net = Net(3)
    x = net.input(4, 5)
    found = net("NonZero", net("Greater", x, net.constant(np.float32(1e9))))
    count = net("Cast", net("ReduceSum", net("Shape", found), net.ints(0), keepdims=0), to=TensorProto.FLOAT)
    check(net, net("Add", net("Relu", x), count), native=False)


def test_one_plan_for_each_shape():
    net = Net(4)
    x = net.input(1, 3, 8, 8, dims=("n", 3, "h", "w"))
    y = net("GlobalAveragePool", net("Relu", net("Conv", x, net.weight(5, 3, 3, 3), pads=[1] * 4)))
    subject = session(net.model(y))
    assert subject.report.plans == 0
    for shape in [(1, 3, 8, 8), (2, 3, 8, 8), (1, 3, 5, 9), (1, 3, 8, 8), (2, 3, 8, 8)]:
        assert subject.run(None, {x: np.ones(shape, np.float32)})[0].shape == (shape[0], 5, 1, 1)
    assert subject.report.plans == 3
    before = subject.report.weight_bytes
    subject.run(None, {x: np.ones((3, 3, 6, 6), np.float32)})
    assert subject.report.weight_bytes == before  # packed weights belong to the session


def test_the_number_of_plans_is_bounded(monkeypatch):
    monkeypatch.setattr(runtime, "PLAN_LIMIT", 3)
    net = Net(5)
    x = net.input(1, 3, 8, dims=(1, 3, "w"))
    subject = session(net.model(net("Relu", x)))
    for w in (1, 2, 3, 4, 5, 1, 2):
        np.testing.assert_array_equal(subject.run(None, {x: np.full((1, 3, w), w, np.float32)})[0], w)
    assert subject.report.plans == 3


def test_plans_that_go_on_from_a_count_are_kept(monkeypatch):
    """A detector finds another number of objects in every picture; one that was found before needs no new plan."""
    monkeypatch.setattr(runtime, "PLAN_LIMIT", 1)
    monkeypatch.setattr(runtime, "REST_LIMIT", 5)
    net = Net(opset=13)
    x = net.input(9)
    chosen = net("Squeeze", net("NonZero", net("Greater", x, net.constant(np.float32(0)))), net.ints(0))
    subject = session(net.model(net("Exp", net("Gather", x, chosen))))

    def run(count: int) -> int:
        before = set(map(id, subject.runner.plans))
        (found,) = subject.run(None, {x: np.where(np.arange(9) < count, 1, -1).astype(np.float32)})
        np.testing.assert_allclose(found, np.full(count, np.e), rtol=1e-6)
        return len(set(map(id, subject.runner.plans)) - before)

    assert [run(count) for count in (1, 2, 3, 4, 5, 1, 5, 3)] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert [run(count) for count in (6, 2, 3)] == [1, 1, 0] and subject.report.plans == 6


def test_max_memory():
    net = Net(6)
    x = net.input(1, 8, 64, 64, dims=(1, 8, "h", "w"))
    y = net("Conv", net("Relu", net("Conv", x, net.weight(8, 8, 3, 3), pads=[1] * 4)), net.weight(8, 8, 3, 3), pads=[1] * 4)
    model = net.model(y)
    free = session(model)
    expected = free.run(None, net.feeds)[0]
    used = free.report.arena_bytes + free.report.weight_bytes + expected.nbytes
    np.testing.assert_array_equal(session(model, max_memory=used).run(None, net.feeds)[0], expected)
    tight = session(model, max_memory=used - 1)
    with pytest.raises(MemoryLimitError, match=str(used - 1)):
        tight.run(None, net.feeds)
    small = np.ones((1, 8, 8, 8), np.float32)  # a smaller image fits
    assert tight.run(None, {x: small})[0].shape == (1, 8, 8, 8)
    with pytest.raises(MemoryLimitError):
        tight.run(None, {x: np.broadcast_to(np.float32(0), (1, 8, 1 << 14, 1 << 14))})


def test_native_only_refuses_what_needs_the_fallback():
    net = Net(7)
    x = net.input(4, 4)
    y = net("Relu", net("Det", net("Reshape", net("MatMul", x, net.normal(4, 4)), net.ints(1, 4, 4)), name="determinant"))
    with pytest.raises(UnsupportedError, match="'determinant' \\(Det\\)"):
        session(net.model(y), native_only=True)
    subject = session(net.model(y))
    subject.run(None, net.feeds)
    assert [(f.node, f.op_type) for f in subject.report.fallbacks] == [("determinant", "Det")]


@pytest.mark.parametrize("taken", [True, False])
def test_if_reads_the_outer_scope(taken: bool):
    """Both branches read values of the graph around them: one an image, one a constant, one an output of the graph."""
    net = Net(8)
    x = net("Conv", net.input(1, 3, 6, 6), net.weight(4, 3, 3, 3), pads=[1] * 4)
    shared, weight = net("Sigmoid", x), net.normal(4, 1, 1)
    branches = [body([helper.make_node("Mul", [x, weight], ["p"]), helper.make_node("Add", ["p", shared], ["o"])],
                     outputs=[("o", 1)]),
                body([helper.make_node("Neg", [shared], ["o2"])], outputs=[("o2", 1)])]
    y = net("If", net.feed(np.array(taken)), then_branch=branches[0], else_branch=branches[1])
    check(net, net("Conv", y, net.weight(2, 4, 3, 3), pads=[1] * 4), shared, native=False)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_loop_with_state_and_outer_values(count: int):
    net = Net(9)
    x = net("MatMul", net.input(3, 5), net.normal(5, 5))
    step = net.normal(5)
    loop = body([helper.make_node("Add", ["state", step], ["next"]), helper.make_node("Mul", ["next", x], ["row"]),
                 helper.make_node("Identity", ["go"], ["on"])],
                [("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("state", 1, [3, 5])],
                [("on", TensorProto.BOOL), ("next", 1), ("row", 1)])
    last, rows = net("Loop", net.feed(np.array(count, np.int64)), net.constant(np.array(True)), x, body=loop, outputs=2)
    check(net, net("Relu", net("MatMul", last, net.normal(5, 4))), *([rows] if count else []), native=False)


def test_loop_without_inputs_after_a_convolution():
    """The Loop's first input is absent, and its body is the only reader of the convolution."""
    net = Net(10)
    x = net("Conv", net.input(1, 2, 4, 4), net.weight(2, 2, 1, 1))
    loop = body([helper.make_node("Add", ["state", x], ["next"]), helper.make_node("Less", ["i", "two"], ["on"])],
                [("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("state", 1, [1, 2, 4, 4])],
                [("on", TensorProto.BOOL), ("next", 1)])
    loop.initializer.append(onnx.numpy_helper.from_array(np.int64(2), "two"))
    check(net, net("Loop", None, net.constant(np.array(True)), net.normal(1, 2, 4, 4), body=loop), native=False)


def test_sequences_pass_through():
    """A sequence is a Python object between native steps; its elements outlive the memory they came from."""
    net = Net(11)
    x = net("Conv", net.input(1, 4, 6, 6), net.weight(6, 4, 3, 3), pads=[1] * 4)
    y = net("Relu", x)
    parts = net("SequenceConstruct", x, y)
    parts = net("SequenceInsert", parts, net("Conv", y, net.weight(6, 6, 1, 1)), net.constant(np.int64(0)))
    joined = net("ConcatFromSequence", parts, axis=1)
    at = net("SequenceAt", parts, net.feed(np.array(1, np.int64)))
    check(net, net("Conv", joined, net.weight(3, 18, 3, 3), pads=[1] * 4), net("Conv", at, net.weight(3, 6, 3, 3)), native=False)


def test_sequence_as_output_is_the_callers():
    net = Net(12)
    x = net.input(2, 6)
    y = net("Relu", net("MatMul", x, net.normal(6, 6)))
    sequence = net("SplitToSequence", y, net.ints(2, 4), axis=1)
    proto = onnx.ModelProto.FromString(ir.to_proto(net.model(y)).SerializeToString())
    proto.graph.output.append(helper.make_tensor_sequence_value_info(sequence, TensorProto.FLOAT, None))
    subject = session(ir.from_proto(proto))
    found, parts = subject.run(None, net.feeds)
    np.testing.assert_array_equal(np.concatenate(parts, 1), found)
    kept = [p.copy() for p in parts]
    subject.run(None, {x: net.feeds[x] * 5})
    for part, copy in zip(parts, kept):
        np.testing.assert_array_equal(part, copy)


def test_strings_pass_through():
    net = Net(13)
    words = net.feed(np.array(["alpha", "beta", "gamma"], object))
    x = net.input(3, 2)
    joined = net("StringConcat", words, net.constant(np.array(["-a", "-b", "-c"], object)))
    found = session(net.model(joined, net("Relu", x), types={joined: TensorProto.STRING})).run(None, net.feeds)
    assert found[0].tolist() == ["alpha-a", "beta-b", "gamma-c"]
    np.testing.assert_array_equal(found[1], np.maximum(net.feeds[x], 0))


def test_scalars_reach_the_fallback_as_scalars():
    """Rank 0 stays rank 0 on the way into a fallback node and out of it."""
    net = Net(14)
    x = net.feed(np.array(2.5, np.float32))
    y = net("Mul", x, x)
    z = net("Cast", y, to=TensorProto.DOUBLE)
    found = session(net.model(z, net("Relu", y), types={z: TensorProto.DOUBLE})).run(None, net.feeds)
    assert found[0].shape == () == found[1].shape and found[0].dtype == np.float64 and found[0] == found[1] == 6.25


def test_other_data_types_between_native_steps():
    net = Net(15)
    x = net.input(1, 3, 6, 6)
    y = net("Conv", x, net.weight(4, 3, 3, 3), pads=[1] * 4)
    positive = net("Greater", y, net.constant(np.float32(0)))
    mask = net("Where", net("And", positive, net("Not", net("Less", y, net.constant(np.float32(0.1))))), y,
               net.constant(np.float32(0)))
    check(net, net("Conv", mask, net.weight(2, 4, 3, 3), pads=[1] * 4), positive, native=False, types={positive: TensorProto.BOOL})


def test_many_threads_share_a_session_with_fallbacks():
    """Cut plans, subgraphs and native steps at once from eight threads: the same bits as alone."""
    net = Net(16)
    x = net.input(6, 8)
    kept = net("NonZero", net("Greater", net("ReduceSum", net("MatMul", x, net.normal(8, 8)), net.ints(1), keepdims=0),
                              net.constant(np.float32(0))))
    rows = net("Gather", x, net("Squeeze", kept, net.ints(0)), axis=0)
    branch = [body([helper.make_node("MatMul", [rows, net.normal(8, 8)], [f"o{i}"])], outputs=[(f"o{i}", 1)]) for i in (0, 1)]
    y = net("Relu", net("If", net.feed(np.array(True)), then_branch=branch[0], else_branch=branch[1]))
    model = net.model(y)
    feeds = [{n: a if a.dtype == bool else net.rng.standard_normal(a.shape).astype(np.float32) for n, a in net.feeds.items()}
             for _ in range(8)]
    expected, subject = [session(model).run(None, f)[0] for f in feeds], session(model)

    def work(feed, right) -> None:
        for _ in range(25):
            np.testing.assert_array_equal(subject.run(None, feed)[0], right)

    together(*(partial(work, *pair) for pair in zip(feeds, expected)))
    assert len({e.shape for e in expected}) > 1


def test_a_default_can_be_overridden():
    """An initializer that is also an input is a default: another array takes its place, and then the default again."""
    net = Net(17)
    x, w = net.input(1, 3, 5, 5), net.weight(4, 3, 1, 1)
    net.shapes[w] = (4, 3, 1, 1)
    model = net.model(net("Conv", x, w))
    model.graph.inputs.append(model.graph.initializers[w])
    subject = session(model)
    default, other = net.initializers[w], net.rng.standard_normal((4, 3, 1, 1)).astype(np.float32)
    for weight, feeds in ((default, {}), (other, {w: other}), (default, {})):
        found = subject.run(None, net.feeds | feeds)[0]
        np.testing.assert_allclose(found, np.einsum("nchw,mcij->nmhw", net.feeds[x], weight), rtol=1e-4, atol=1e-5)
    assert [i.name for i in subject.get_inputs()] == [x]
    with pytest.raises(InvalidInputError, match=w):
        subject.run(None, net.feeds | {w: other.astype(np.float64)})


def test_shapes_that_cannot_be():
    net = Net(18)
    x = net.input(2, 6, dims=("n", "k"))
    subject = session(net.model(net("Reshape", x, net.ints(3, -1))))
    assert subject.run(None, net.feeds)[0].shape == (3, 4)
    with pytest.raises(ShapeError):
        subject.run(None, {x: np.zeros((2, 5), np.float32)})
