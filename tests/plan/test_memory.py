"""The arena: buffers alive together never overlap, and memory is used again."""
from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from session_harness import Net, session

from infold.plan.memory import ALIGN, plan_arena, round_up
from infold.plan.tensor import Buffer

lifetimes = st.tuples(st.integers(0, 5000), st.integers(0, 12), st.integers(0, 12))


@given(st.lists(lifetimes, max_size=25))
def test_buffers_alive_together_never_overlap(given_buffers):
    buffers = []
    for nbytes, a, b in given_buffers:
        buffer = Buffer("arena", nbytes)
        buffer.touch(a)
        buffer.touch(b)
        assert (buffer.first, buffer.last) == (min(a, b), max(a, b))
        buffers.append(buffer)
    total = plan_arena(buffers)
    peak = max((sum(round_up(b.nbytes) for b in buffers if b.first <= step <= b.last) for step in range(13)), default=0)
    assert peak <= total <= sum(round_up(b.nbytes) for b in buffers)
    for i, one in enumerate(buffers):
        assert one.offset % ALIGN == 0 and one.offset + one.nbytes <= total
        for other in buffers[:i]:
            if one.first <= other.last and other.first <= one.last and one.nbytes and other.nbytes:
                assert one.offset + one.nbytes <= other.offset or other.offset + other.nbytes <= one.offset


def test_memory_is_used_again():
    """A chain of any length needs the two largest neighbours at once, not the sum; what nothing touches needs none."""
    chain = [Buffer("arena", 1000 * ALIGN) for _ in range(20)]
    for at, buffer in enumerate(chain):
        buffer.touch(at)
        buffer.touch(at + 1)
    assert plan_arena([*chain, Buffer("arena", 1 << 40)]) == 2 * 1000 * ALIGN


def test_a_deep_net_needs_no_more_than_a_shallow_one():
    sizes = []
    for depth in (4, 12):
        net = Net(1)
        x = net.input(1, 16, 32, 32)
        for _ in range(depth):
            x = net("Relu", net("Conv", x, net.weight(16, 16, 3, 3), pads=[1] * 4))
        sizes.append(session(net.model(x)).report.arena_bytes)
    assert sizes[0] == sizes[1] <= 3 * 4 * 16 * 34 * 34 + 4096


def test_a_residual_lives_until_it_is_added():
    """Every intermediate of a block is poisoned by later ones if its lifetime ends too soon."""
    net = Net(2)
    x = first = net("Conv", net.input(1, 8, 9, 9), net.weight(8, 8, 1, 1))
    for _ in range(6):
        x = net("Relu", net("Conv", x, net.weight(8, 8, 3, 3), pads=[1] * 4))
    y = net("Add", x, first)
    both = session(net.model(y)).run(None, net.feeds)[0]
    apart = session(net.model(x, first)).run(None, net.feeds)
    np.testing.assert_allclose(both, apart[0] + apart[1], rtol=1e-5, atol=1e-6)
