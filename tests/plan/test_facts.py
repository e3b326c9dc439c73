"""What is known before a run: shape arithmetic becomes constants, data types and empty values are kept, nothing large is
computed."""
from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from session_harness import Net, check, session

from infold.errors import ShapeError
from infold.ops import base
from infold.plan import facts
from infold.plan.facts import VALUE_LIMIT, Fact, infer_node


def facts_of(model, feeds) -> dict[str, Fact]:
    """The facts of every value for feeds of these shapes."""
    known = {n: Fact(a.shape, a.dtype) for n, a in feeds.items()}
    known |= {n: Fact.of(v.const_value.numpy()) for n, v in model.graph.initializers.items()}
    for node in model.graph:
        found = infer_node(node, known, model)
        if found is None:
            break
        known.update(zip([v.name for v in node.outputs], found))
    return known


def test_shape_arithmetic_of_an_exporter():
    """Shape -> Gather -> Unsqueeze -> Concat -> Reshape, and sizes halved for a Resize: constants for every input shape."""
    net = Net(1)
    x = net.input(2, 6, 8, 10, dims=("n", 6, "h", "w"))
    shape = net("Shape", x)
    batch = net("Unsqueeze", net("Gather", shape, net.constant(np.int64(0))), net.ints(0))
    area = net("ReduceProd", net("Slice", shape, net.ints(2), net.ints(4)), keepdims=1)
    target = net("Concat", batch, net.ints(6), area, axis=0)
    y = net("Reshape", net("Conv", x, net.weight(6, 6, 3, 3), pads=[1] * 4), target)
    model = net.model(y)
    known = facts_of(model, net.feeds)
    np.testing.assert_array_equal(known[target].value, [2, 6, 80])
    assert known[y].shape == (2, 6, 80)
    subject = check(net, y)
    for n, h, w in ((1, 4, 4), (3, 8, 5)):
        out = subject.run(None, {x: np.ones((n, 6, h, w), np.float32)})[0]
        assert out.shape == (n, 6, h * w)
    assert not subject.report.fallbacks


def test_values_that_follow_from_the_shape_differ_between_plans():
    """A float made of the input's width is a constant of each plan, not of the session."""
    net = Net(2)
    x = net.input(1, 4, 6, dims=(1, 4, "w"))
    width = net("Cast", net("Gather", net("Shape", x), net.constant(np.int64(2))), to=onnx.TensorProto.FLOAT)
    positions = net("Cast", net("Range", net.constant(np.int64(0)), net("Gather", net("Shape", x), net.constant(np.int64(2))),
                                net.constant(np.int64(1))), to=onnx.TensorProto.FLOAT)
    weight = net("Expand", width, net.ints(3, 4, 1))
    out = net("Add", net("Div", x, width), positions), net("Conv", x, weight), net("MatMul", net("Transpose", x, perm=[0, 2, 1]),
                                                                                   net("Expand", width, net.ints(4, 2)))
    subject = session(net.model(*out))
    for w in (6, 3, 9, 6):
        given = net.rng.standard_normal((1, 4, w)).astype(np.float32)
        a, b, c = subject.run(None, {x: given})
        np.testing.assert_allclose(a, given / w + np.arange(w), rtol=1e-6)
        np.testing.assert_allclose(b, np.repeat(given.sum(1, keepdims=True) * w, 3, 1), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(c, np.repeat(given.sum(1)[..., None] * w, 2, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Tile", "Range"])
def test_nothing_large_is_computed_while_planning(op: str):
    net, many = Net(3), 1 << 40
    if op == "ConstantOfShape":
        y = net(op, net.ints(many))
    elif op == "Range":
        y = net(op, net.constant(np.int64(0)), net.constant(np.int64(many)), net.constant(np.int64(1)))
    else:
        y = net(op, net.normal(1, VALUE_LIMIT if op == "Tile" else 1), net.ints(many, 1))
    fact = facts_of(net.model(y), {}).get(y)
    assert fact is None or fact.value is None


def test_random_values_are_no_constants():
    net = Net(4)
    y = net("RandomNormal", shape=[4, 5])
    z = net("RandomNormalLike", net.normal(3))
    subject = session(net.model(y, z))
    first, second = subject.run(None, {}), subject.run(None, {})
    assert not np.array_equal(first[0], second[0]) and not np.array_equal(first[1], second[1])


def test_shape_and_size_forms():
    net = Net(5)
    x = net.input(2, 3, 4)
    outputs = [net("Shape", x), net("Shape", x, start=1), net("Shape", x, start=-2, end=-1), net("Shape", x, end=10),
               net("Size", x)]
    model = net.model(*outputs, types=dict.fromkeys(outputs, onnx.TensorProto.INT64))
    found = session(model).run(None, net.feeds)
    for array, expected in zip(found, ([2, 3, 4], [3, 4], [3], [2, 3, 4], 24)):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == np.int64 and array.shape == np.shape(expected)


def test_contradicting_shapes_name_the_node():
    net = Net(6)
    x = net.input(1, 3, 8, 8, dims=(1, "c", 8, 8))
    y = net("Conv", x, net.weight(4, 3, 3, 3), name="first_convolution")
    subject = session(net.model(y))
    with pytest.raises(ShapeError, match="first_convolution"):
        subject.run(None, {x: np.zeros((1, 5, 8, 8), np.float32)})
    np.testing.assert_equal(subject.run(None, net.feeds)[0].shape, (1, 4, 6, 6))


X = (2, 6, 9, 8)
FORMS = [
    *[("MatMul", shapes, {}) for shapes in (
        ((3, 4), (4, 5)), (X, (8, 3)), ((1, 5, 9, 8), (4, 1, 8, 2)), ((4,), (4, 3)), (X, (7, 3)), ((2, 3, 4), (3, 4, 5)),
        ((0, 4), (4, 2)))],
    *[("Reshape", (X, np.array(shape)), {"allowzero": zero}) for zero in (0, 1) for shape in (
        [2, -1], [0, 0, -1], [0, -1, 0], [12, 9, 8], [-1], [2, 6, 9, 8, 1], [-1, -1], [5, -1], [3, 3], [-2, 4], [0] * 5, [])],
    *[("Reshape", ((0, 3), np.array(shape)), {"allowzero": zero}) for zero in (0, 1) for shape in (
        [0, -1], [-1, 3], [0, 7], [3, 0])],
    *[(op, (X, np.array(wrong)), {}) for op in ("Reshape", "Split", "ReduceMean") for wrong in ([1.0], [[1]], 1, [True])],
    *[("Split", (X, *sizes), {"axis": axis, **more}) for axis in (1, 2, -1, 5) for sizes, more in (
        ((), {}), ((), {"num_outputs": 2}), ((), {"num_outputs": 3}), ((np.array([3, 3]),), {}), ((np.array([4, 5]),), {}),
        ((np.array([9, -1]),), {}), ((np.array([8]),), {}))],
    *[("ReduceMean", (X, *axes), {"keepdims": keep}) for keep in (0, 1) for axes in (
        (), (np.array([1]),), (np.array([-1, 2]),), (np.array([], np.int64),), (np.array([2, -2]),), (np.array([4]),))],
    *[(op, (X,), {"kernel_shape": kernel, **more}) for op in ("MaxPool", "AveragePool") for kernel in ([3, 2], [1, 1], [9, 9], [3])
      for more in ({}, {"strides": [2, 3]}, {"pads": [1, 1, 0, 2]}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
                   {"auto_pad": "VALID", "strides": [4, 1]}, {"ceil_mode": 1, "strides": [2, 2]}, {"dilations": [2, 1]})],
]


def test_the_operators_own_shapes_are_those_of_onnx():
    """What `Op.infer` says of forms usual and not is what onnx says; where it says nothing, onnx decides anyway."""
    answered = set()
    for op, shapes, attributes in FORMS:
        outputs = ["y", "z"] if op == "Split" else ["y"]
        proto = onnx.helper.make_model(onnx.helper.make_graph([onnx.helper.make_node(
            op, [f"i{i}" for i in range(len(shapes))], outputs, **attributes)], "g", [
            onnx.helper.make_tensor_value_info(f"i{i}", 1, None) for i in range(len(shapes))], []),
            opset_imports=[onnx.helper.make_opsetid("", 22)])
        model = ir.from_proto(proto)
        [node] = model.graph
        known = {f"i{i}": Fact(s, np.dtype(np.float32)) if isinstance(s, tuple) else Fact.of(s) for i, s in enumerate(shapes)}
        inputs = list(known.values())
        try:
            expected = facts._onnx_inference(node, inputs, model)
        except ShapeError:
            expected = None
        try:
            found = base.find(node).infer(node, inputs)
        except ValueError:
            found = None
        if found is not None:
            assert expected is not None, (op, shapes, attributes, found)
            assert [tuple(s) for s in found] == [f.shape for f in expected], (op, shapes, attributes)
            answered.add(op)
    assert answered == {op for op, _, _ in FORMS}
