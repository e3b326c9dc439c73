"""3x3 convolution of stride 1, dilated or not, by Winograd's minimal filtering, F(2x2, 3x3) and F(4x4, 3x3); in three dimensions a
sum of such over the planes of the window (any stride from plane to plane).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). A tile of side x side outputs is a polynomial product of
which only the values at side + 2 points per axis are multiplied: (side + 2)^2 products per channel and filter instead of 9 side^2.
"""
from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import repeat
from math import ceil, inf, prod
from typing import TYPE_CHECKING

import numpy as np

from .. import _native
from ..plan.choice import Way
from ..plan.memory import round_up
from ..plan.tensor import BF16, Tensor
from .conv_taps import Tap, add_up, taps_of
from .convolution import Convolution
from .epilogue import Epilogue
from .product import chain_of_sums, ending, row_pieces, vector
from .splits import FAR_BYTE

if TYPE_CHECKING:
    from fractions import Fraction

# Opposite pairs of finite points beside 0 and infinity. For F(4x4) near the least rounding error (measured; Barabasz et al., "Error
# Analysis and Improving the Accuracy of Winograd Convolution for DNNs", 2020), and with all constants of the transforms exact in
# float32.
POINTS = {2: (1,), 4: (5 / 8, 3 / 2)}
LINE = 16  # floats of a cache line
SHARED, LEAST = 56, 14  # tiles that threads which share out the filters take at once; tiles that read a filter from afar once

LONGEST_CHAIN = 32  # products in one chain: an error here comes out of the last transform several times as large

# Tiles that may serve precision "highest": F(2x2) loses in its transforms no more than nine times shorter sums gain over
# onnxruntime's; F(4x4) errs two to three times as much.
HIGHEST = {2}

# Cycles, fitted to measurements: one vector of channels of a tile into the transformed domain or back; the accumulators of a
# product begun and stored, in rows of the reduction.
TRANSFORM, ENDS = {2: 100, 4: 250}, 8


def winograd4(ctx, c: Convolution) -> Way | None:
    return _way(ctx, c, 4)


def winograd2(ctx, c: Convolution) -> Way | None:
    return _way(ctx, c, 2)


def _way(ctx, c: Convolution, side: int) -> Way | None:
    win = c.window
    if c.weight is None or c.groups != 1 or c.node.meta.get("exact"):  # integers, which these transforms would round
        return None
    if win.kernel[-2:] != (3, 3) or win.stride[-2:] != (1, 1) or any(d > n for d, n in zip(win.dilation[-2:], c.out_shape[-2:])):
        return None
    met = taps_of(c, ctx.shape(c.x)[2:], len(win.kernel) - 2)
    if not met:
        return None
    allowed = side in HIGHEST or ctx.options.precision != "highest"
    return Way(f"winograd{side}", sum(_cycles(ctx, c, side, tap) for tap in met) if allowed else inf,
               lambda: _emit(ctx, c, side, met), half=len(met) == 1, padded=False)


def _cycles(ctx, c: Convolution, side: int, tap: Tap) -> float:
    positions, tiles = (side + 2) ** 2, c.out_shape[0] * tap.pixels * _tiles(c, side)
    into, back = ceil(c.channels / ctx.lanes), ceil(c.columns / ctx.lanes)
    weights = c.channels * c.columns * 4 * FAR_BYTE  # to fetch one position's
    work = tiles * (positions * back * (c.channels + ENDS) / 2 + (into + back) * TRANSFORM[side])
    return max(work + (positions - 9) * weights, positions * weights)


@cache
def filter_transform(side: int) -> list[list[Fraction]]:
    """G, (side + 2) x 3: the filter, as a polynomial, at each point p, over the product of p - q for the other points q.

    The order is that of the points 0, a, -a, (b, -b,) infinity.
    """
    from fractions import Fraction

    points = [Fraction(0), *(sign * Fraction(p) for p in POINTS[side] for sign in (1, -1))]
    scale = [1 / prod((p - q for q in points if q != p), start=Fraction(1)) for p in points]
    return [[s * p ** i for i in range(3)] for s, p in zip(scale, points)] + [[Fraction(0), Fraction(0), Fraction(1)]]


def _emit(ctx, c: Convolution, side: int, met: list[Tap]) -> None:
    def emit(tap: Tap, x: Tensor, out: Tensor, residual: Tensor | None, found: Epilogue) -> None:
        images = [tap.source(c, x), tap.target(out), None if residual is None else tap.target(residual)]
        batches = zip(*map(_stacks, images)) if tap.index else [images]
        for batch in batches:
            _add(ctx, c, side, _pack(ctx, c, side, tap), vector(ctx, c.bias if tap is met[-1] else None, c.columns), *batch, found)

    add_up(ctx, c, met, emit, half=True)
    ctx.release(c.w)


def _stacks(t: Tensor | None) -> Iterator[Tensor | None]:
    """Each volume of a batch as a batch of images."""
    if t is None:
        yield from repeat(None)
    for at in range(t.shape[0]):
        yield t.view((t.shape[2], t.shape[1], *t.shape[3:]), (t.strides[2], t.strides[1], *t.strides[3:]), at * t.strides[0])


def _add(ctx, c: Convolution, side: int, weights: Tensor, bias: Tensor, x: Tensor, out: Tensor, residual: Tensor | None,
         found: Epilogue) -> None:
    """The step for a batch of images."""
    positions, n = (side + 2) ** 2, (out.shape[0], *out.shape[2:])
    slots = ctx.options.threads
    tiles = _tiles_at_once(c, side, n[0] * _tiles(c, side))
    v_position, m_position = round_up(tiles * c.channels, LINE) + LINE, round_up(tiles * c.columns, LINE) + LINE
    args, parameters = ending(ctx, found)
    ctx.emit("winograd",
             {"in": x, "w": weights, "bias": bias, "out": out, "res": residual,
              "scratch": ctx.temporary((slots * positions * (v_position + m_position),)), **args},
             flops=2 * prod(n) * 9 * c.channels * c.columns, side=side, n=n, in_size=x.shape[2:],
             pad=[before for before, _ in c.window.pads[-2:]], dilation=c.window.dilation[-2:],
             in_stride=x.steps(), out_stride=out.steps(), res_stride=residual.steps() if residual is not None else 0,
             k=c.channels, columns=c.columns, slots=slots, tiles=tiles, v_position=v_position, m_position=m_position,
             chunk=chain_of_sums(ctx, c.channels, c.channels, LONGEST_CHAIN), **parameters,
             point=[float(p) for p in (*POINTS[side], 0)[:2]],
             in_half=x.dtype == BF16, out_half=out.dtype == BF16)


def _pack(ctx, c: Convolution, side: int, tap: Tap) -> Tensor:
    """[position] of panels [channel] x [filter], of the window's plane at the tap."""
    positions, each = (side + 2) ** 2, c.channels * round_up(c.columns, ctx.lanes)
    g = [float(x) for row in filter_transform(side) for x in row]
    params = dict(side=side, k=c.channels, out_group=each, g=g + [0.0] * (18 - len(g)))

    def pieces() -> Iterator[tuple[np.ndarray, int, int, dict]]:
        for at, some in row_pieces(c.weight, ctx.nr):
            size = (positions - 1) * each + c.channels * round_up(len(some), ctx.lanes)
            yield some[:, :, *tap.index], at * c.channels, size, {**params, "columns": len(some)}

    return ctx.precompute((*ctx.key(c.w), "winograd", side, *tap.index), "pack_winograd", positions * each, pieces())


def _tiles(c: Convolution, side: int) -> int:
    """Of one image."""
    return prod(d * ceil(ceil(n / d) / side) for n, d in zip(c.out_shape[-2:], c.window.dilation[-2:]))


def _tiles_at_once(c: Convolution, side: int, tiles: int) -> int:
    """Tiles in a block: all if they are few, otherwise as many as the second-level cache holds with their products."""
    each = 4 * (side + 2) ** 2 * (c.channels + c.columns)
    return tiles if tiles <= SHARED else min(max((_native.cache_bytes(2) or 1 << 19) // each, LEAST), SHARED)
