"""Views of buffers against NumPy's."""
from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infold.plan.tensor import BF16, F32, Buffer, Tensor, image_layout, pixel_stride, row_strides

shapes = st.lists(st.integers(1, 6), min_size=0, max_size=5)


def tensor(array: np.ndarray, base: np.ndarray) -> Tensor:
    """The planner's view of a NumPy view of `base`."""
    item = array.itemsize
    return Tensor(Buffer("arena", base.nbytes), array.shape, tuple(s // item for s in array.strides), array.dtype,
                  array.__array_interface__["data"][0] - base.__array_interface__["data"][0])


def read(t: Tensor, base: np.ndarray) -> np.ndarray:
    return np.ndarray(t.shape, t.dtype, base, t.offset, [s * t.dtype.itemsize for s in t.strides])


@st.composite
def views(draw):
    """(base, view): a transposed, sliced, expanded view of consecutive numbers."""
    shape = draw(shapes)
    base = np.arange(prod(shape), dtype=np.float32).reshape(shape)
    view = base.transpose(draw(st.permutations(range(len(shape)))))
    steps = [draw(st.sampled_from([1, 1, 2, -1])) for _ in shape]
    view = view[(*(slice(None, None, s) for s in steps), ...)]
    if draw(st.booleans()):
        view = np.broadcast_to(view, (draw(st.integers(1, 3)), *view.shape))
    return base, view


@given(shapes)
def test_row_strides(shape):
    assert [s * 4 for n, s in zip(shape, row_strides(shape)) if n > 1] == \
        [s for n, s in zip(shape, np.zeros(shape, np.float32).strides) if n > 1]


@given(views())
def test_is_rows_is_c_contiguous(pair):
    base, view = pair
    assert tensor(view, base).is_rows() == view.flags.c_contiguous


@given(views(), st.data())
def test_reshape_is_a_view_where_numpy_has_one(pair, data):
    base, view = pair
    n = view.size
    first = data.draw(st.sampled_from([d for d in range(1, n + 1) if n % d == 0]))
    shape = data.draw(st.sampled_from([(n,), (first, n // first), (1, n // first, 1, first)]))
    seen = tensor(view, base).reshape(shape)
    expected = view.view()
    try:
        expected.shape = shape
    except AttributeError:
        expected = None
    assert (seen is None) == (expected is None)
    if seen is not None:
        np.testing.assert_array_equal(read(seen, base), view.reshape(shape))


@given(views(), st.data())
def test_broadcast(pair, data):
    base, view = pair
    shape = [*data.draw(st.lists(st.integers(1, 3), max_size=2)),
             *(data.draw(st.integers(1, 3)) if n == 1 else n for n in view.shape)]
    np.testing.assert_array_equal(read(tensor(view, base).broadcast(shape), base), np.broadcast_to(view, shape))


@given(views(), st.data())
def test_view_moves_by_elements(pair, data):
    base, view = pair
    if view.size == 0 or not view.ndim:
        return
    axis = data.draw(st.integers(0, view.ndim - 1))
    start = data.draw(st.integers(0, view.shape[axis] - 1))
    expected = view[(slice(None),) * axis + (slice(start, None),)]
    t = tensor(view, base)
    np.testing.assert_array_equal(read(t.view(expected.shape, t.strides, start * t.strides[axis]), base), expected)


def test_empty_tensors_reshape():
    t = Tensor(Buffer("arena"), (2, 0, 3), row_strides((2, 0, 3)), F32)
    assert t.is_rows() and t.reshape((0, 7)).shape == (0, 7)


@given(st.integers(1, 3), st.integers(1, 5), st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3), st.integers(0, 3)),
                                                      min_size=1, max_size=3),
       st.integers(0, 3))
def test_image_layout(batch, channels, spatial, slack):
    """The layout is that of a padded NHWC array of `pixel` floats a pixel, seen without its border."""
    border = [(before, after) for _, before, after in spatial]
    pixel = channels + slack
    shape = (batch, channels, *(n for n, _, _ in spatial))
    strides, first, count = image_layout(shape, pixel, border)
    padded = np.arange(count).reshape(batch, *(n + before + after for n, before, after in spatial), pixel)
    inner = padded[(slice(None), *(slice(before, before + n) for n, before, _ in spatial), slice(0, channels))]
    found = np.lib.stride_tricks.as_strided(padded.reshape(-1)[first:], shape, [8 * s for s in strides])
    np.testing.assert_array_equal(found, np.moveaxis(inner, -1, 1))
    assert Tensor(Buffer("arena"), shape, strides, F32).is_image()


@given(st.integers(1, 3000))
def test_pixel_stride_keeps_away_from_cache_conflicts(channels):
    for dtype in (F32, BF16):
        stride = pixel_stride(channels, dtype)
        assert channels <= stride <= channels + 64 // dtype.itemsize and stride * dtype.itemsize % 1024 != 0


def test_reshape_never_reads_memory():
    """A gigabyte of addresses behind no memory at all: deciding that a copy is needed must not make one."""
    wide = Tensor(Buffer("arena"), (1000, 1000, 256), (1, 1000, 1000 * 1000), np.dtype(np.float32))
    assert wide.reshape((1000 * 256, 1000)) is None
    assert wide.reshape((10, 100, 1000, 256)).strides == (100, 1, 1000, 1000 * 1000)
