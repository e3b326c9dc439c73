"""Gemm and MatMul: transposes, factors, broadcast batches, and the bias and activation they take over."""
from __future__ import annotations

import itertools

import numpy as np
import pytest
from session_harness import Net, check, session

ADDENDS = [None, (), (1,), (7,), (1, 7), (5, 7), (5, 1), (1, 1)]


@pytest.mark.parametrize("constant", [True, False], ids=["weights", "computed"])
@pytest.mark.parametrize("trans_a, trans_b", itertools.product((0, 1), (0, 1)))
@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.5, 1.5), (-2.0, 0.0)])
def test_gemm(trans_a: int, trans_b: int, factors: tuple, constant: bool):
    net = Net(1)
    shape = (7, 11) if trans_b else (11, 7)
    b = net.normal(*shape) if constant else net.input(*shape)
    y = net("Gemm", net.input(*((11, 5) if trans_a else (5, 11))), b, net.normal(7), alpha=factors[0], beta=factors[1],
            transA=trans_a,
            transB=trans_b)
    check(net, y, native=constant or factors[0] == 1.0)


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("shape", ADDENDS, ids=str)
def test_gemm_addend(shape, computed: bool):
    net = Net(2)
    c = [] if shape is None else [net.input(*shape) if computed else net.normal(*shape)]
    native = shape is None or (not computed and shape not in ((5, 7), (5, 1)))
    check(net, net("Gemm", net.input(5, 11), net.normal(11, 7), *c, beta=0.7), native=native)


@pytest.mark.parametrize("opset", [6, 7, 9, 13])
def test_gemm_of_old_opsets(opset: int):
    net = Net(3, opset)
    y = net("Gemm", net.input(3, 4), net.normal(5, 4), net.normal(5), transB=1, broadcast=1 if opset < 7 else None)
    check(net, y)


@pytest.mark.parametrize("rows", [1, 2, 14, 15, 33])
@pytest.mark.parametrize("columns", [1, 8, 16, 17, 32, 100])
def test_gemm_edges(rows: int, columns: int):
    """Every edge of the micro-kernel, and more columns than rows so that threads share panels."""
    net = Net(4)
    check(net, net("Gemm", net.input(rows, 65), net.normal(65, columns)), trivial=rows * columns == 1)


MATMULS = {
    # name: (a, b, is b constant)
    "matrix": ((4, 5), (5, 6), True),
    "stack": ((2, 3, 4, 5), (5, 6), True),
    "stack-of-one": ((2, 3, 4, 5), (1, 1, 5, 6), True),
    "computed": ((4, 5), (5, 6), False),
    "batched": ((2, 3, 4, 5), (2, 3, 5, 6), False),
    "batched-weights": ((2, 3, 4, 5), (2, 3, 5, 6), True),
    "outer-batch": ((2, 3, 4, 5), (3, 5, 6), False),
    "inner-batch": ((2, 3, 4, 5), (2, 1, 5, 6), False),
    "both-broadcast": ((2, 1, 4, 5), (1, 3, 5, 6), False),
    "more-on-the-right": ((4, 5), (3, 2, 5, 6), False),
    "one-row": ((1, 64), (64, 33), True),
    "one-column": ((9, 64), (64, 1), True),
    "one-product": ((7, 1), (1, 6), False),
}


@pytest.mark.parametrize("case", MATMULS)
def test_matmul(case: str):
    a, b, constant = MATMULS[case]
    net = Net(5)
    check(net, net("MatMul", net.input(*a), net.normal(*b) if constant else net.input(*b)))


@pytest.mark.parametrize("a, b", [((5,), (5, 6)), ((4, 5), (5,)), ((5,), (3, 5, 6)), ((2, 3, 4, 5), (5,))], ids=str)
def test_matmul_of_vectors(a: tuple, b: tuple):
    net = Net(6)
    check(net, net("MatMul", net.input(*a), net.normal(*b)), native=False)


@pytest.mark.parametrize("perm", list(itertools.permutations(range(4)))[::3], ids=str)
def test_matmul_of_transposed_views(perm: tuple):
    """Attention in small: both operands are transposes of stored tensors, none of which is copied by hand."""
    net = Net(7)
    shape = (2, 3, 4, 5)
    q = net("Transpose", net.input(*(shape[perm.index(i)] for i in range(4))), perm=list(perm))
    inverse = [2, 3, 5, 4]
    k = net("Transpose", net.input(*(inverse[perm.index(i)] for i in range(4))), perm=list(perm))
    check(net, net("MatMul", q, k), net("MatMul", q, net.normal(5, 9)))


@pytest.mark.parametrize("shape", [(6,), (1, 6), (1, 1, 6), (3, 4, 6)], ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_matmul_with_bias_and_activation(shape: tuple, first: bool):
    net = Net(8)
    y, bias = net("MatMul", net.input(3, 4, 5), net.normal(5, 6)), net.normal(*shape)
    check(net, net("Relu", net("Add", bias, y) if first else net("Add", y, bias)))


def test_matmul_with_a_bias_that_widens_the_result():
    """The addend has more dimensions than the product: no bias of the product, but an Add of its own."""
    net = Net(9)
    check(net, net("Relu", net("Add", net("MatMul", net.input(4, 5), net.normal(5, 6)), net.normal(1, 1, 6))))


def test_matmul_residual_and_prelu():
    net = Net(10)
    x = net.input(2, 7, 6)
    y = net("Add", net("MatMul", x, net.normal(6, 6)), x)
    z = net("PRelu", net("MatMul", y, net.normal(6, 7)), net.normal(7, 1))
    check(net, z, net("PRelu", net("Gemm", net.input(5, 6), net.normal(6, 9)), net.normal(1, 9)))


def test_unnamed_products_of_one_weight_keep_their_own_factor_and_bias():
    net = Net(11)
    x, w = net.input(4, 6), net.normal(6, 6)
    check(net, net("Gemm", x, w, net.normal(6), alpha=0.5), net("Gemm", x, w, net.normal(6), alpha=2.0), net("MatMul", x, w),
          net("Gemm", x, w, transB=1))


@pytest.mark.parametrize("a, b", [((4, 6, 1, 5), (1, 6, 5, 7)), ((3, 4, 6, 2, 5), (1, 1, 6, 5, 7)), ((3, 4, 3, 5), (5, 7)),
                                  ((1, 4, 2, 3, 5), (1, 1, 2, 5, 7)), ((2, 3, 1, 2, 4, 5), (2, 1, 1, 1, 5, 7))], ids=str)
def test_dimensions_along_which_the_second_does_not_vary(a: tuple, b: tuple):
    """Lambda layers, attention with few keys: no copy of it is made."""
    net = Net()
    y = net("MatMul", net("Neg", net.input(*a)), net("Neg", net.input(*b)))
    check(net, y)
    assert "unary.identity" not in {s.kernel for s in session(net.model(y)).profile(net.feeds, runs=1)}


def test_dimensions_that_do_not_merge_around_such_a_one():
    net = Net()
    check(net, net("MatMul", net.input(2, 3, 2, 4, 5), net.input(2, 1, 2, 5, 7)))


@pytest.mark.parametrize("seed", range(12))
def test_random_stacks(seed: int):
    """Broadcast batches of any shape, operands stored in any order."""
    rng, net = np.random.default_rng(seed), Net(seed)
    batch = rng.integers(1, 4, rng.integers(0, 4)).tolist()
    m, k, n = rng.integers(1, 12, 3).tolist()

    def operand(*last: int) -> str:
        dims = [d if rng.random() < 0.7 else 1 for d in batch] + list(last)
        order = rng.permutation(len(dims)).tolist()
        return net("Transpose", net.input(*(dims[i] for i in order)), perm=[order.index(i) for i in range(len(dims))])

    check(net, net("MatMul", operand(m, k), operand(k, n)), native=False, trivial=True)
