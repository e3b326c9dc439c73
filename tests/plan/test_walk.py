"""collapse: six dimensions that visit the same addresses together as the original ones."""
from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.ops.base import NotNative
from infold.plan.tensor import row_strides
from infold.plan.walk import MAX_DIMS, collapse


def visits(shape, operands) -> Counter:
    """How often each tuple of offsets, one per operand, is visited."""
    return Counter(tuple(sum(i * s for i, s in zip(index, strides)) for strides in operands)
                   for index in product(*map(range, shape)))


@st.composite
def spaces(draw):
    shape = draw(st.lists(st.integers(1, 4), max_size=6))
    order = draw(st.permutations(range(len(shape))))
    inner = row_strides([shape[i] for i in order])
    turned = tuple(inner[order.index(i)] for i in range(len(shape)))
    kinds = [row_strides(shape), turned, tuple(-s for s in turned), tuple(2 * s for s in turned),
             tuple(0 if draw(st.booleans()) else s for s in row_strides(shape))]
    return shape, [draw(st.sampled_from(kinds)) for _ in range(draw(st.integers(0, 2)))] + [draw(st.sampled_from(kinds[:4]))]


@given(spaces())
def test_visits_what_the_loops_visit(space):
    shape, operands = space
    extents, strides = collapse(shape, *operands)
    assert len(extents) == MAX_DIMS and all(len(s) == MAX_DIMS for s in strides)
    assert visits(extents, strides) == visits(shape, operands)


def test_a_contiguous_copy_is_one_run():
    extents, (a, b) = collapse((3, 5, 7), row_strides((3, 5, 7)), row_strides((3, 5, 7)))
    assert extents == [1, 1, 1, 1, 1, 105] and a[-1] == b[-1] == 1


def test_a_long_run_is_shared_out_in_rows():
    extents, (a,) = collapse((8 * 4096,), (1,))
    assert extents[-2:] == [8, 4096] and a[-2:] == [4096, 1]


def test_the_output_decides_the_order():
    extents, (a, b) = collapse((5, 7), (7, 1), (1, 5))  # a transposed output: its contiguous dimension comes last
    assert extents[-2:] == [7, 5] and b[-2:] == [5, 1] and a[-2:] == [1, 7]


def test_too_many_dimensions():
    shape = (2,) * 8
    with pytest.raises(NotNative, match="more than 6"):
        collapse(shape, tuple(s if i % 2 else 0 for i, s in enumerate(row_strides(shape))), row_strides(shape))
