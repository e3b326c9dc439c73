"""Sliding-window arithmetic shared by convolution and pooling, for any number of spatial dimensions.

Source: the shape formulas of Conv, MaxPool and AveragePool in the ONNX operator specification.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """Where the windows lie; every tuple has one entry per spatial dimension."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]  # padding before
    end: tuple[int, ...]  # padding after, as the model states it (may be fewer cells than ceil_mode reaches)
    input: tuple[int, ...]
    output: tuple[int, ...]

    def taps(self) -> Iterator[tuple[int, ...]]:
        """Yield every position inside the kernel, row-major."""
        return itertools.product(*(range(size) for size in self.kernel))

    def taps_over_input(self) -> Iterator[tuple[int, ...]]:
        """The same without those under which every window has padding: kernels may be far larger than what they pool."""
        seen = []
        for k, s, d, begin, n, out in zip(self.kernel, self.strides, self.dilations, self.begin, self.input, self.output):
            first, end = -((out - 1) * s - begin) // d, -(-(n + begin) // d)  # of the last window's, and of the first's
            seen.append(range(max(first, 0), min(end, k)))
        return itertools.product(*seen)

    def pad(self, x: np.ndarray, value) -> np.ndarray:
        """Pad `x` [N, C, *input] with `value` so that every window lies inside; negative padding crops."""
        width, crop = [(0, 0), (0, 0)], [slice(None)] * 2
        for k, s, d, begin, n, out in zip(self.kernel, self.strides, self.dilations, self.begin, self.input, self.output):
            reach = (out - 1) * s + (k - 1) * d + 1 - begin
            width.append((max(begin, 0), max(reach - n, 0)))
            crop.append(slice(max(-begin, 0), None))
        x = x[tuple(crop)]
        return np.pad(x, width, constant_values=value) if any(any(pair) for pair in width) else x

    def at(self, padded: np.ndarray, tap: Sequence[int]) -> np.ndarray:
        """Return the view [N, C, *output] of the cells that lie under one tap of every window."""
        return padded[
            (
                ...,
                *(
                    slice(t * d, t * d + (out - 1) * s + 1, s)
                    for t, d, s, out in zip(tap, self.dilations, self.strides, self.output)
                ),
            )
        ]

    def counts(self, include_pad: bool) -> np.ndarray:
        """Return how many cells of each window [*output] lie in the input, or in the padded input."""
        total = np.ones(())
        for axis, (k, s, d, n, out) in enumerate(zip(self.kernel, self.strides, self.dilations, self.input, self.output)):
            cells = np.arange(out)[:, None] * s - self.begin[axis] + np.arange(k) * d
            low, high = (-self.begin[axis], n + self.end[axis]) if include_pad else (0, n)
            total = total[..., None] * ((cells >= low) & (cells < high)).sum(axis=1)
        return total


def windows(
    x: np.ndarray,
    kernel: Sequence[int],
    strides=None,
    dilations=None,
    pads=None,
    auto_pad: str | None = None,
    ceil_mode: int | None = 0,
) -> Windows:
    """Resolve ONNX's attributes for an input [N, C, *spatial].

    Windows that would start in the padding after the input are dropped, as ONNX demands under `ceil_mode`.
    Raises:
        ValueError: the kernel's rank does not fit, or there is no complete window.
    """
    rank = x.ndim - 2
    ones = (1,) * rank
    kernel, strides, dilations = tuple(kernel), tuple(strides or ones), tuple(dilations or ones)
    pads = tuple(pads or (0,) * 2 * rank)
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise ValueError(
            f"kernel {kernel}, strides {strides}, dilations {dilations}, pads {pads} do not fit an input of shape {x.shape}"
        )
    auto_pad = auto_pad or "NOTSET"
    begin, end, output = [], [], []
    for axis, (n, k, s, d) in enumerate(zip(x.shape[2:], kernel, strides, dilations)):
        extent = (k - 1) * d + 1
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            out = -(-n // s)
            total = max((out - 1) * s + extent - n, 0)
            first = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            before, after = first, total - first
        else:
            before, after = (0, 0) if auto_pad == "VALID" else (pads[axis], pads[axis + rank])
            span = n + before + after - extent
            out = (-(-span // s) if ceil_mode else span // s) + 1
            if ceil_mode and (out - 1) * s >= n + before:
                out -= 1
        if out < 1:
            raise ValueError(f"a kernel of {extent} cells does not fit spatial dimension {axis} of {x.shape}")
        begin.append(before)
        end.append(after)
        output.append(out)
    return Windows(kernel, strides, dilations, tuple(begin), tuple(end), x.shape[2:], tuple(output))
