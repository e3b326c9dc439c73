"""Values are born where their readers want them: no copy for concatenations, borders and outputs."""
from __future__ import annotations

import numpy as np
from session_harness import Net, check, session


def kernels(subject, net: Net) -> list[str]:
    return [step.kernel for step in subject.profile(net.feeds, runs=1)]


def test_a_dense_block_copies_only_the_input_and_the_output():
    """Each layer reads everything before it: concatenations grow, and every part is written once, into the widest."""
    net = Net(1)
    x = net.input(1, 3, 8, 8)
    parts = [net("Conv", x, net.weight(16, 3, 3, 3), pads=[1] * 4)]
    for _ in range(4):
        joined = net("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
        channels = 16 + 8 * (len(parts) - 1)
        narrow = net("Relu", net("Conv", joined, net.weight(12, channels, 1, 1), net.normal(12)))
        parts.append(net("Conv", narrow, net.weight(8, 12, 3, 3), pads=[1] * 4))
    subject = check(net, net("Concat", *parts, axis=1))
    found = kernels(subject, net)
    assert found.count("conv") == 9
    assert found.count("unary.identity") == 2, found  # the input into NHWC, the result out of it


def test_convolutions_in_a_row_need_no_copy_between_them():
    net = Net(2)
    x = net.input(1, 6, 10, 10)
    for kernel in (3, 5, 1, 3):
        x = net("Conv", x, net.weight(6, 6, kernel, kernel), pads=[kernel // 2] * 4)
    subject = check(net, x)
    assert kernels(subject, net).count("unary.identity") == 2


def test_a_concat_with_a_border_for_its_reader():
    net = Net(3)
    x = net("Conv", net.input(2, 3, 9, 9), net.weight(8, 3, 1, 1))
    parts = [net("Conv", x, net.weight(n, 8, k, k), pads=[k // 2] * 4) for n, k in ((5, 1), (7, 3), (4, 5))]
    parts.append(net("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4))
    subject = check(net, net("Conv", net("Concat", *parts, axis=1), net.weight(6, 24, 3, 3), pads=[1] * 4))
    assert kernels(subject, net).count("unary.identity") == 2


def test_nested_concats():
    net = Net(4)
    x = net("Conv", net.input(1, 3, 7, 7), net.weight(4, 3, 3, 3), pads=[1] * 4)
    a, b = (net("Conv", x, net.weight(n, 4, 1, 1)) for n in (3, 5))
    inner = net("Concat", a, b, axis=1)
    outer = net("Concat", x, inner, net("Conv", inner, net.weight(2, 8, 3, 3), pads=[1] * 4), axis=1)
    subject = check(net, net("Conv", outer, net.weight(4, 14, 3, 3), pads=[1] * 4))
    assert kernels(subject, net).count("unary.identity") == 2


def test_split_and_concat_back_is_no_work():
    """Parts that already lie side by side are their own concatenation."""
    net = Net(5)
    x = net("Conv", net.input(1, 3, 7, 7), net.weight(12, 3, 3, 3), pads=[1] * 4)
    a, b, c = net("Split", x, net.ints(3, 5, 4), axis=1, outputs=3)
    subject = check(net, net("Conv", net("Concat", a, b, c, axis=1), net.weight(4, 12, 3, 3), pads=[1] * 4),
                    net("Conv", net("Concat", b, c, axis=1), net.weight(4, 9, 3, 3), pads=[1] * 4))
    assert kernels(subject, net).count("unary.identity") == 3  # one input, two outputs


def test_a_value_in_two_concats_is_copied_into_one():
    net = Net(6)
    x = net("Conv", net.input(1, 3, 7, 7), net.weight(4, 3, 1, 1))
    y, z = (net("Conv", x, net.weight(4, 4, 1, 1)) for _ in range(2))
    check(net, net("Concat", x, y, axis=1), net("Concat", y, x, z, axis=1), net("Concat", x, x, axis=1))


def test_matrix_outputs_are_written_where_the_caller_gets_them():
    net = Net(7)
    y = net("Gemm", net.input(4, 8), net.normal(8, 5), net.normal(5))
    subject = check(net, net("Relu", y))
    assert kernels(subject, net) == ["conv"]


def test_shuffle():
    """ShuffleNet's unit: split, two branches, concat, channel shuffle by reshape and transpose."""
    net = Net(8)
    x = net("Conv", net.input(1, 3, 8, 8), net.weight(16, 3, 3, 3), pads=[1] * 4)
    for _ in range(3):
        left, right = net("Split", x, net.ints(8, 8), axis=1, outputs=2)
        right = net("Relu", net("Conv", right, net.weight(8, 8, 1, 1), net.normal(8)))
        right = net("Conv", right, net.weight(8, 1, 3, 3), net.normal(8), group=8, pads=[1] * 4)
        right = net("Relu", net("Conv", right, net.weight(8, 8, 1, 1), net.normal(8)))
        joined = net("Concat", left, right, axis=1)
        turned = net("Transpose", net("Reshape", joined, net.ints(1, 2, 8, 8, 8)), perm=[0, 2, 1, 3, 4])
        x = net("Reshape", turned, net.ints(1, 16, 8, 8))
    check(net, x)


def test_outputs_that_are_inputs_constants_and_views():
    net = Net(9)
    x = net.input(2, 6, 4)
    y = net("Transpose", x, perm=[2, 0, 1])
    w = net.normal(3, 3)
    model = net.model(y, net("Identity", w), net("Identity", x), net("Reshape", y, net.ints(8, 6)))
    subject = session(model)
    first = subject.run(None, net.feeds)
    np.testing.assert_array_equal(first[0], net.feeds[x].transpose(2, 0, 1))
    np.testing.assert_array_equal(first[1], net.initializers[w])
    np.testing.assert_array_equal(first[2], net.feeds[x])
    np.testing.assert_array_equal(first[3], first[0].reshape(8, 6))
    kept = [a.copy() for a in first]
    for array in first:
        array[...] = 77  # the caller's own memory, all of it
    for found, expected in zip(subject.run(None, net.feeds), kept):
        np.testing.assert_array_equal(found, expected)
    assert not np.shares_memory(subject.run(None, net.feeds)[2], net.feeds[x])
