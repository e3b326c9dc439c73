"""Values inside a plan: strided views of buffers. Layout is nothing but strides: NHWC images, transposes, slices and channel
concatenations are all views."""
from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import ml_dtypes
import numpy as np

ADDRESSABLE = 1 << 46  # bytes of one value

# Element types that values in a plan may have, by the names that the C side has for them.
TYPES = {np.dtype(kind): name for name, kind in {
    "f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": ml_dtypes.bfloat16, "i8": np.int8, "i16": np.int16,
    "i32": np.int32, "i64": np.int64, "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64, "b8": np.bool_,
}.items()}
F32, BF16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)
ANY = tuple(TYPES.values())
INTEGERS = tuple(name for name in ANY if name[0] in "iu")
NUMBERS = ("f32", "f64", *INTEGERS)


@dataclass(eq=False)
class Buffer:
    """Memory that a plan reads or writes. `kind`: "arena", "region" (an array handed to the run), "const" or "object".

    `first` and `last` are the indices of the first and last step that touch it; `offset` (bytes) is set by the memory planner,
    `region` is its number among the run's arrays (the arena is region 0).
    """

    kind: str
    nbytes: int = 0
    array: np.ndarray | None = None
    region: int = 0
    offset: int = 0
    first: int | None = None
    last: int = -1

    def touch(self, step: int) -> None:
        if self.first is None or step < self.first:
            self.first = step
        if step > self.last:
            self.last = step


class Tensor(NamedTuple):
    """A view: `offset` in bytes from the start of the buffer, `strides` in elements, logical (ONNX) dimension order.

    `border`: for images, how many zero pixels are readable around the view, ((before, after), ...) per spatial dimension.
    """

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    offset: int = 0
    border: tuple[tuple[int, int], ...] = ()

    @property
    def size(self) -> int:
        return prod(self.shape)

    def view(self, shape, strides, elements: int = 0, border=()) -> Tensor:
        """Another view of the same memory, `elements` further on."""
        return Tensor(self.buffer, tuple(shape), tuple(strides), self.dtype, self.offset + elements * self.dtype.itemsize,
                      tuple(border))

    def steps(self) -> tuple[int, ...]:
        """Of an image: elements from one to the next of the batch, and from pixel to pixel by spatial dimension."""
        return self.strides[0], *self.strides[2:]

    def is_rows(self) -> bool:
        """Row-major and contiguous (dimensions of extent 1 do not matter)."""
        return all(n == 1 or s == r for n, s, r in zip(self.shape, self.strides, row_strides(self.shape))) or self.size == 0

    def is_words(self) -> bool:
        """One run of memory that begins and ends on 4 bytes."""
        return self.is_rows() and self.offset % 4 == 0 and self.size * self.dtype.itemsize % 4 == 0

    def words(self) -> Tensor:
        """That run as numbers of 4 bytes."""
        return self._replace(shape=(self.size * self.dtype.itemsize // 4,), strides=(1,), dtype=F32, border=())

    def is_image(self) -> bool:
        """(N, C, spatial...) whose channels are contiguous: what the convolution and pooling drivers read."""
        return len(self.shape) >= 3 and (self.shape[1] == 1 or self.strides[1] == 1)

    def has_border(self, border) -> bool:
        """Whether at least these zeros surround the image."""
        have = self.border or ((0, 0),) * len(border)
        return all(h[0] >= b[0] and h[1] >= b[1] for h, b in zip(have, border))

    def broadcast(self, shape) -> Tensor:
        """The same data seen with a larger shape (NumPy rules): repeated dimensions get stride 0."""
        lead = len(shape) - len(self.shape)
        if lead < 0 or any(n not in (1, m) for n, m in zip(self.shape, shape[lead:])):
            raise ValueError(f"a value of shape {list(self.shape)} does not broadcast to {list(shape)}")
        strides = [0] * lead + [s if n == m else 0 for s, n, m in zip(self.strides, self.shape, shape[lead:])]
        return self.view(shape, strides)

    def reshape(self, shape) -> Tensor | None:
        """The same elements in row-major order under another shape, or None where that needs a copy."""
        if self.size == 0 or self.is_rows():
            return self.view(shape, row_strides(shape))
        strides = _reshaped_strides(self.shape, self.strides, tuple(shape))
        return None if strides is None else self.view(shape, strides)


def _reshaped_strides(shape, strides, new) -> list[int] | None:
    """Strides under which `new` walks the same elements in the same order, or None if none do. Nothing may be empty.

    NumPy's algorithm, on numbers alone: NumPy's own reshape copies the data before it says that it had to.
    """
    if prod(shape) != prod(new):
        raise ValueError(f"shape {list(shape)} has not as many elements as {list(new)}")
    old = [(n, s) for n, s in zip(shape, strides) if n != 1]
    out = [1] * len(new)
    i = j = 0
    while i < len(old) and j < len(new):
        i_end, j_end, covered, wanted = i + 1, j + 1, old[i][0], new[j]
        while covered != wanted:  # the shortest runs of dimensions with equally many elements
            if wanted < covered:
                wanted *= new[j_end]
                j_end += 1
            else:
                covered *= old[i_end][0]
                i_end += 1
        if any(old[k][1] != old[k + 1][0] * old[k + 1][1] for k in range(i, i_end - 1)):
            return None
        step = old[i_end - 1][1]
        for k in reversed(range(j, j_end)):
            out[k] = step
            step *= new[k]
        i, j = i_end, j_end
    return out


def prefers_image(tensor: Tensor) -> bool:
    """Whether elementwise results of this tensor are best stored as an NHWC image."""
    return tensor.is_image() and not tensor.is_rows()


def row_strides(shape) -> tuple[int, ...]:
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def image_layout(shape, pixel: int, border) -> tuple[tuple[int, ...], int, int]:
    """Strides, first element and element count of an (N, C, spatial...) image stored NHWC with a zero border."""
    strides = [0] * len(shape)
    strides[1] = 1
    step, first = pixel, 0
    for axis in range(len(shape) - 1, 1, -1):
        before, after = border[axis - 2]
        strides[axis] = step
        first += before * step
        step *= shape[axis] + before + after
    strides[0] = step
    return tuple(strides), first, step * shape[0]


def pixel_stride(channels: int, dtype: np.dtype) -> int:
    """Elements from one pixel to the next. A multiple of 1 KiB puts neighbouring pixels into few L1 sets: go a line further."""
    return channels + 64 // dtype.itemsize if channels * dtype.itemsize % 1024 == 0 else channels
