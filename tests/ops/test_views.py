"""Reshape, Transpose, Slice, Split, Concat, Expand and their like: the same memory seen differently, and the copies that remain."""
from __future__ import annotations

import itertools
from math import prod

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_harness import Net, check, session

HUGE = (1 << 31) - 1


@pytest.mark.parametrize("shape, target", [((2, 3, 4), (6, 4)), ((2, 3, 4), (0, -1)), ((2, 3, 4), (-1,)),
                                           ((2, 3, 4), (1, 2, 12, 1)), ((6,), (2, 3)),
                                           ((1,), ()), ((), (1, 1)), ((2, 12, 3, 3), (2, 3, 4, 3, 3)), ((2, 12, 3, 3), (2, -1))],
                                           ids=str)
@pytest.mark.parametrize("layout", ["rows", "image", "turned"])
def test_reshape(shape: tuple, target: tuple, layout: str):
    net = Net(1)
    x = net.input(*shape)
    if layout == "image":
        if len(shape) < 3:
            pytest.skip("no image")
        x = net("Conv", x, net.weight(shape[1], shape[1], *[1] * (len(shape) - 2)))
    elif layout == "turned":
        x = net("Transpose", net.input(*shape[::-1]))
    y = net("Reshape", x, net.ints(*target))
    check(net, y, net("Relu", y), trivial=prod(shape) == 1)


@pytest.mark.parametrize("opset, shape", [(1, (0, -1)), (5, (0, 12)), (13, (2, -1)), (14, (24,))])
def test_reshape_of_old_opsets(opset: int, shape: tuple):
    net = Net(2, opset)
    x = net.input(2, 3, 4)
    y = net("Reshape", x, shape=list(shape)) if opset < 5 else net("Reshape", x, net.ints(*shape))
    check(net, net("Flatten", y, axis=1 if len(shape) > 1 else None), net("Neg", y))


@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4, -1])
def test_flatten(axis: int):
    net = Net(3)
    x = net.input(2, 6, 4, 5)
    check(net, net("Flatten", x, axis=axis), net("Flatten", net("MaxPool", x, kernel_shape=[2, 2]), axis=axis))


@pytest.mark.parametrize("opset", [1, 11, 13])
def test_squeeze_and_unsqueeze(opset: int):
    net = Net(4, opset)
    x = net.input(1, 3, 1, 5, 1)

    def apply(op: str, value: str, *axes: int) -> str:
        return net(op, value, net.ints(*axes)) if opset >= 13 else net(op, value, axes=list(axes))

    negative = (-1,) if opset >= 11 else (4,)
    check(net, apply("Squeeze", x, 0, 2), apply("Squeeze", x, 2, 0), apply("Squeeze", x, *negative), net("Squeeze", x),
          apply("Unsqueeze", x, 0, 3), apply("Unsqueeze", x, 5))


@pytest.mark.parametrize("perm", [None, *itertools.permutations(range(3))], ids=str)
def test_transpose(perm):
    net = Net(5)
    x = net.input(3, 17, 40)
    check(net, net("Transpose", x, perm=perm), net("Add", net("Transpose", x, perm=perm), net.constant(np.float32(1))))


SLICES = [
    # starts, ends, axes, steps
    ([1], [3], [0], [1]), ([0, 2], [HUGE, HUGE], [1, 2], [1, 1]), ([-3], [-1], [1], [1]), ([-1], [-HUGE - 1], [2], [-1]),
    ([5, 4], [0, 1], [1, 3], [-2, -1]), ([1], [2**63 - 1], [-1], [2]), ([100], [-100], [0], [-1]), ([-100], [100], [1], [3]),
    ([0, 0, 0, 0], [2, 4, 3, 2], None, None), ([3], [HUGE], [1], None), ([2, 1], [9, 4], None, None),
    ([-1, -1, -1, -1], [-2**63, -2**63, -2**63, -2**63], [0, 1, 2, 3], [-1, -1, -1, -1]), ([3], [3], [1], [1]),
    ([4], [2], [2], [1]),
]


@pytest.mark.parametrize("layout", ["rows", "image"])
@pytest.mark.parametrize("case", SLICES, ids=str)
def test_slice(case: tuple, layout: str):
    net, (starts, ends, axes, steps) = Net(6), case
    x = net.input(4, 8, 5, 6)
    if layout == "image":
        x = net("Conv", x, net.weight(8, 8, 1, 1))
    y = net("Slice", x, net.ints(*starts), net.ints(*ends), *([net.ints(*axes)] if axes else [None] if steps else []),
            *([net.ints(*steps)] if steps else []))
    check(net, y, net("Relu", y), trivial=True)


@pytest.mark.parametrize("opset", [1, 9])
def test_slice_of_old_opsets(opset: int):
    net = Net(7, opset)
    x = net.input(4, 8, 5)
    check(net, net("Slice", x, starts=[1, -3], ends=[HUGE, -1], axes=[0, 2]), net("Slice", x, starts=[0, 2], ends=[2, 5]))


def test_slices_of_an_image_feed_padded_convolutions():
    """A channel slice keeps the border, a spatial one must not: its neighbours are data, not zeros."""
    net = Net(8)
    x = net("Conv", net.input(1, 3, 9, 9), net.weight(8, 3, 3, 3), pads=[1] * 4)

    def cut(axis: int, start: int, end: int, step: int = 1) -> str:
        return net("Slice", x, net.ints(start), net.ints(end), net.ints(axis), net.ints(step))

    def conv(value: str, channels: int) -> str:
        return net("Conv", value, net.weight(4, channels, 3, 3), pads=[1] * 4)

    check(net, conv(cut(1, 2, 7), 5), conv(cut(2, 1, 8), 8), conv(cut(3, 0, 5), 8), conv(cut(2, 0, HUGE, 2), 8),
          conv(cut(3, -1, -HUGE, -1), 8),
          conv(cut(1, 0, 8, 2), 4), conv(x, 8))


@pytest.mark.parametrize("opset", [2, 11, 13, 18])
def test_split(opset: int):
    net = Net(9, opset)
    x = net.input(2, 12, 5)

    def split(value: str, axis: int, *sizes: int) -> list[str]:
        if opset < 13:
            return net("Split", value, axis=axis, split=list(sizes), outputs=len(sizes))
        return net("Split", value, net.ints(*sizes), axis=axis, outputs=len(sizes))

    even = net("Split", x, axis=1, outputs=3, **({"num_outputs": 3} if opset >= 18 else {}))
    check(net, *even, *split(x, 1, 1, 4, 7), *split(x, 2, 2, 3), *split(net("Relu", x), 0, 1, 1))


def test_uneven_split_by_number():
    net = Net(10, 18)
    check(net, *net("Split", net.input(2, 10, 3), axis=1, outputs=4, num_outputs=4))


def test_expand():
    net = Net(11)
    x = net.input(3, 1, 5)
    y = net("Expand", x, net.ints(2, 3, 4, 1))
    check(net, y, net("Add", y, net.input(4, 5)), net("Expand", x, net.ints(1)), net("Reshape", y, net.ints(6, 20)),
          net("Conv", net("Expand", net.input(1, 1, 6, 6), net.ints(2, 5, 6, 6)), net.weight(4, 5, 3, 3), pads=[1] * 4))


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("layout", ["rows", "image", "mixed"])
def test_concat(axis: int, layout: str):
    net = Net(12)
    parts = []
    for extent in (3, 1, 4):
        shape = [2, 5, 6, 7]
        shape[axis] = extent
        x = net.input(*shape)
        if layout == "image" or (layout == "mixed" and extent == 1):
            x = net("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4)
        parts.append(x)
    y = net("Concat", *parts, axis=axis)
    check(net, y, net("Relu", y))


def test_a_stack_of_images_keeps_their_layout():
    """Selective kernels (Li et al., 2019) sum over branches that are stacked in a dimension of their own."""
    net = Net(31)
    branches = [net("Conv", net.input(2, 5, 6, 7), net.weight(8, 5, 1, 1)) for _ in range(3)]
    stack = net("Concat", *(net("Unsqueeze", branch, net.ints(1)) for branch in branches), axis=1)
    weighted = net("ReduceSum", net("Mul", stack, net.input(2, 3, 8, 1, 1)), net.ints(1))
    subject = check(net, net("ReduceSum", stack, net.ints(1), keepdims=0), weighted)
    read = [step.args[0].strides for plan in subject.runner.plans for step in plan.steps if step.op.name == "reduce"]
    assert any(strides[2] == 1 and strides[1] > strides[3] for strides in read)  # whole vectors of channels, branches apart


def test_concat_of_everything_twice():
    """A part that occurs twice, a graph input, a constant, a view of another part, and an empty one."""
    net = Net(13)
    x = net("Conv", net.input(1, 3, 6, 6), net.weight(4, 3, 3, 3), pads=[1] * 4)
    y = net("Relu", x)
    flipped = net("Slice", y, net.ints(-1), net.ints(-HUGE), net.ints(1), net.ints(-1))
    turned = net("Transpose", y, perm=[0, 1, 3, 2])
    empty = net("Slice", y, net.ints(2), net.ints(2), net.ints(1))
    z = net("Concat", y, y, net.input(1, 2, 6, 6), net.normal(1, 1, 6, 6), flipped, empty, turned, net("Identity", y), axis=1)
    check(net, z, net("Conv", z, net.weight(3, 23, 3, 3), pads=[1] * 4), y)


def test_concat_of_opset_1_without_axis():
    net = Net(14, 1)
    x, y = net.input(2, 3, 4), net.input(2, 5, 4)
    found = session(net.model(net("Concat", x, y))).run(None, net.feeds)[0]
    np.testing.assert_array_equal(found, np.concatenate([net.feeds[x], net.feeds[y]], 1))


@pytest.mark.parametrize("opset, attributes", [(1, dict(is_test=1, ratio=0.3)), (6, dict(is_test=1)), (7, dict(ratio=0.4)),
                                               (12, {}), (13, {})])
def test_dropout_does_nothing(opset: int, attributes: dict):
    net = Net(15, opset)
    check(net, net("Relu", net("Dropout", net.input(2, 3, 4), **attributes)))


def test_integer_and_boolean_views():
    net = Net(16)
    for dtype in (np.int64, np.int32, np.uint8, np.bool_, np.float16, np.float64):
        x = net.feed(net.rng.integers(0, 2, (2, 3, 4)).astype(dtype))
        y = net("Transpose", net("Reshape", net("Slice", x, net.ints(1), net.ints(3), net.ints(1)), net.ints(4, 4)))
        found = session(net.model(y, types={y: onnx_type(dtype)})).run(None, net.feeds)[0]
        expected = net.feeds[x][:, 1:3].reshape(4, 4).T
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def onnx_type(dtype) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_chains_of_views(data):
    """Any chain of views, of rows or an image, gives what NumPy gives; each link is read by a kernel too."""
    net = Net(data.draw(st.integers(0, 99)))
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    x = net.input(*shape)
    if len(shape) >= 3 and data.draw(st.booleans()):
        x = net("Conv", x, net.weight(shape[1], shape[1], *[1] * (len(shape) - 2)))
    outputs = []
    for _ in range(data.draw(st.integers(1, 5))):
        rank = len(shape)
        match data.draw(st.sampled_from(["transpose", "reshape", "slice", "expand", "split", "concat", "unsqueeze"])):
            case "transpose":
                perm = data.draw(st.permutations(range(rank)))
                x, shape = net("Transpose", x, perm=perm), [shape[i] for i in perm]
            case "reshape":
                shape = data.draw(st.sampled_from(factorings(prod(shape))))
                x = net("Reshape", x, net.ints(*shape))
            case "slice":
                axis = data.draw(st.integers(0, rank - 1))
                n, start, step = shape[axis], data.draw(st.integers(-6, 6)), data.draw(st.sampled_from([-2, -1, 1, 2]))
                end = data.draw(st.integers(-8, 8))
                extent = len(range(*slice(start, end, step).indices(n)))
                if not extent:
                    continue
                x = net("Slice", x, net.ints(start), net.ints(end), net.ints(axis), net.ints(step))
                shape = [*shape[:axis], extent, *shape[axis + 1:]]
            case "expand":
                shape = [data.draw(st.integers(1, 3)) if n == 1 else n for n in shape]
                x = net("Expand", x, net.ints(*shape))
            case "split":
                axis = data.draw(st.integers(0, rank - 1))
                at = data.draw(st.integers(0, shape[axis] - 1))
                if not at:
                    continue
                first, x = net("Split", x, net.ints(at, shape[axis] - at), axis=axis, outputs=2)
                shape = [*shape[:axis], shape[axis] - at, *shape[axis + 1:]]
                outputs.append(net("Neg", first))
            case "concat":
                axis = data.draw(st.integers(0, rank - 1))
                if prod(shape) * 2 > 500:
                    continue
                x = net("Concat", x, net("Sigmoid", x), axis=axis)
                shape = [*shape[:axis], 2 * shape[axis], *shape[axis + 1:]]
            case "unsqueeze":
                axis = data.draw(st.integers(0, rank))
                if rank == 5:
                    continue
                x, shape = net("Unsqueeze", x, net.ints(axis)), [*shape[:axis], 1, *shape[axis:]]
        outputs += [net("Tanh", x)] if data.draw(st.booleans()) else []
    if not net.nodes:
        x = net("Identity", x)
    check(net, x, *outputs, trivial=True)


def factorings(n: int) -> list[list[int]]:
    """Shapes of up to four dimensions with n elements."""
    out = [[n]]
    for a in (d for d in range(1, n + 1) if n % d == 0):
        out.append([a, n // a])
        out += [[a, b, n // a // b] for b in range(1, n // a + 1) if n // a % b == 0]
    return out
