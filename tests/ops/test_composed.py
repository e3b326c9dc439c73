"""Operators planned as the nodes of a body: written in ops/composed.py, or ONNX's own definition."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from session_harness import Net, check, session

PRODUCTS = [
    ("ij,jk->ik", (4, 5), (5, 6)), ("bij,bjk->bik", (3, 4, 5), (3, 5, 6)), ("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("nchw,nc->nhw", (2, 3, 4, 5), (2, 3)), ("i,j->ij", (4,), (5,)), ("...ij,...jk", (3, 4, 5), (3, 5, 6)),
    ("ij,kj", (4, 5), (6, 5)),
    ("bnij,cj->bnic", (2, 3, 4, 5), (6, 5)), ("ij,ij->", (4, 5), (4, 5)), ("ijk,il->kl", (3, 4, 5), (3, 6)),
]  # fmt: skip


@pytest.mark.parametrize(("equation", "left", "right"), PRODUCTS)
def test_einsum_of_two(equation, left, right, like_onnxruntime):
    net = Net(opset=13)
    y = net("Einsum", net.input(*left), net.input(*right), equation=equation)
    check(net, y, trivial=equation.endswith(">"))
    like_onnxruntime(net, y)


@pytest.mark.parametrize("equation", ["abc->cab", "abc->b", "abc->", "abc"])
def test_einsum_of_one(equation, like_onnxruntime):
    net = Net(opset=13)
    y = net("Einsum", net.input(3, 4, 5), equation=equation)
    check(net, y, trivial=equation.endswith(">"))
    like_onnxruntime(net, y)


def test_einsum_of_three():
    net = Net(opset=13)
    check(net, net("Einsum", net.input(3, 4), net.input(4, 5), net.input(5, 6), equation="ab,bc,cd->ad"))


def test_a_diagonal_falls_back():
    net = Net(opset=13)
    subject = session(net.model(net("Einsum", net.input(4, 4), equation="ii->i")))
    assert [f.reason for f in subject.report.fallbacks] == ["an index twice in one operand"]
    np.testing.assert_array_equal(subject.run(None, net.feeds)[0], np.diag(next(iter(net.feeds.values()))))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot(axis, like_onnxruntime):
    net = Net(opset=13)
    index = net.feed(np.array([[0, 3, -1], [7, -4, 9]], np.int64))
    y = net("OneHot", index, net.constant(np.int64(4)), net.constant(np.array([0.5, 2], np.float32)), axis=axis)
    check(net, y)
    like_onnxruntime(net, y)


@pytest.mark.parametrize(("opset", "axis"), [(11, 1), (11, 2), (13, 1), (13, -1)])
def test_hardmax(opset, axis, like_onnxruntime):
    net = Net(opset=opset)
    check(net, y := net("Hardmax", net.input(3, 4, 5), axis=axis))
    like_onnxruntime(net, y)


def test_hardmax_of_nothing():
    net = Net(opset=13)
    y = net("Hardmax", net.input(0, 4), axis=0)
    assert session(net.model(y)).run([y], net.feeds)[0].shape == (0, 4)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_cum_sum(axis, exclusive, reverse, like_onnxruntime):
    net = Net(opset=14)
    y = net("CumSum", net.input(6, 37), net.constant(np.int64(axis)), exclusive=exclusive, reverse=reverse)
    check(net, y)
    like_onnxruntime(net, y)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int8])
def test_unique(dtype, like_onnxruntime):
    net = Net(opset=13)
    outputs = net("Unique", net.feed(net.rng.integers(0, 9, (5, 6)).astype(dtype)), outputs=4)
    kinds = [onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), *[onnx.TensorProto.INT64] * 3]
    types = dict(zip(outputs, kinds))
    subject = session(net.model(*outputs, types=types))
    subject.run(None, net.feeds)
    assert not subject.report.fallbacks
    like_onnxruntime(net, *outputs, types=types)


def test_what_reads_as_many_entries_as_there_are():
    """The classes that a detector has found, each with the sum of its scores."""
    net = Net(opset=13)
    found, scores = net.feed(np.array([7, 2, 7, 7, 5, 2], np.int64)), net.input(6)
    kinds = net("Unique", found, outputs=1)
    mine = net("Cast", net("Equal", net("Unsqueeze", kinds, net.ints(1)), found), to=onnx.TensorProto.FLOAT)
    check(net, net("ReduceSum", net("Mul", mine, scores), net.ints(1), keepdims=0))


def test_attention_as_onnx_defines_it():
    net = Net(opset=23)
    y = net("Attention", net.input(1, 2, 6, 8), net.input(1, 2, 9, 8), net.input(1, 2, 9, 8), is_causal=1)
    check(net, y)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
def test_powers_of_another_type(dtype, like_onnxruntime):
    net = Net(opset=13)
    x = net("Abs", net.input(3, 4))
    y = net("Add", net("Pow", x, net.constant(np.array(3, dtype))), net("Pow", x, net.feed(np.array([[2], [-1], [0]], dtype))))
    check(net, y)
    like_onnxruntime(net, y)


def test_double_precision():
    """The nodes of a body that have no kernel for it fall back, and only these."""
    net = Net(opset=13)
    x = net.feed(net.rng.standard_normal((3, 4)))
    y = net("Einsum", x, x, equation="ij,kj->ik")
    subject = session(net.model(y, types={y: onnx.TensorProto.DOUBLE}))
    np.testing.assert_allclose(subject.run(None, net.feeds)[0], net.feeds[x] @ net.feeds[x].T)
    assert [f.op_type for f in subject.report.fallbacks] == ["MatMul"]


def test_defaults_of_a_definition():
    """Shrink's function does not say what its attributes are where they are left out; the operator does."""
    net = Net(opset=9)
    check(net, net("Shrink", net.input(5, 7), lambd=0.3))
