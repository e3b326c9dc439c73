"""Depthwise convolution: one filter per channel, no sum over channels to block; and groups of channels that lie in one vector."""
from __future__ import annotations

from math import prod

import numpy as np

from .. import _native
from ..plan.choice import Way
from ..plan.memory import round_up
from ..plan.tensor import BF16, Tensor
from .convolution import Convolution
from .epilogue import Epilogue, epilogue, take
from .product import chain_of_sums, ending, pad4, vector

MAX_BLOCK = 256  # channels that the driver sweeps before it rounds them (depthwise.c)
RUNS = (3, 5, 7)  # widths that have a function in kernels/depthwise.h; the first, for groups, too
SLIDING, ALONE = 0.48, 0.9  # cycles for a vector's multiply-add in groups: taps of a row together, or each for itself


def is_depthwise(c: Convolution) -> bool:
    return c.groups == c.channels == c.columns and c.groups > 1 and c.weight is not None


def depthwise(ctx, c: Convolution) -> Way | None:
    if not is_depthwise(c):
        return None
    return Way("depthwise", c.multiply_adds / ctx.lanes, lambda: _emit(ctx, c), half=True)


def grouped(ctx, c: Convolution) -> Way | None:
    """Groups of 2, 4, 8 channels, 16 on AVX-512, and as many filters: they meet in registers (kernels/depthwise.h)."""
    group = c.channels // c.groups
    if c.weight is None or c.columns != c.channels or group == 1 or ctx.lanes % group or prod(c.window.kernel) == 1 \
            or ctx.lanes < 8:  # the portable vectors have no permutation
        return None
    return Way("grouped", c.multiply_adds / ctx.lanes * (SLIDING if _run(c) > 1 else ALONE), lambda: _emit(ctx, c), half=True)


def _emit(ctx, c: Convolution) -> None:
    found = epilogue(ctx, c.node, per_channel=True)
    take(ctx, found)
    x = ctx.image(c.x, c.border, half=True)
    out = ctx.output(found.output, image=True, half=x.dtype == BF16)
    emit_depthwise(ctx, c, found, x if x.dtype == out.dtype else ctx.wide(x), out)


def emit_depthwise(ctx, c: Convolution, found: Epilogue, x: Tensor, out: Tensor) -> None:
    """The step, for as many pixels as `out` has; the window of its first pixel lies, before padding, at the start of x."""
    pixels = (out.shape[0], *out.shape[2:])
    width, taps, weight = round_up(c.channels, ctx.lanes), tuple(c.taps(x)), c.weight
    group, run = c.channels // c.groups, _run(c)

    def make():
        table = np.zeros((len(taps) * group, width), np.float32)
        table[:, :c.channels] = weight.reshape(c.channels, group, -1, run).transpose(2, 1, 3, 0).reshape(-1, c.channels)
        return table

    args, parameters = ending(ctx, found)
    ctx.emit("depthwise",
             {"in": x, "w": ctx.constant((ctx.isa, "depthwise", run, *ctx.key(c.w)), make, shared=True),
              "bias": vector(ctx, c.bias, c.channels), "out": out,
              "tap": ctx.constant(("taps", taps), lambda: np.array(taps, np.int64)), **args},
             flops=2 * prod(pixels) * len(taps) * group * c.channels, n=pad4(pixels, 1), in_stride=pad4(c.steps(x), 0),
             out_stride=pad4((out.strides[0], *out.strides[2:]), 0), taps=len(taps), channels=c.channels, w_stride=width,
             window=_window(c) if group == 1 else 0, run=run, block=_block(ctx, c, x), half=x.dtype == BF16,
             group=group, chunk=chain_of_sums(ctx, len(taps) * group, run * group),
             **parameters)


def _run(c: Convolution) -> int:
    """Taps that slide along a row together."""
    slides = c.window.stride[-1] == c.window.dilation[-1] == 1 and c.window.kernel[-1] in (RUNS if is_depthwise(c) else RUNS[:1])
    return c.window.kernel[-1] if slides else 1


def _window(c: Convolution) -> int:
    """The stride, if the kernel takes the window as a whole: 3x3, several rows of the output at once. Else 0."""
    win = c.window
    plain = win.kernel == (3, 3) and win.dilation == (1, 1) and win.stride in ((1, 1), (2, 2))
    return win.stride[0] if plain else 0


def _block(ctx, c: Convolution, x: Tensor) -> int:
    """Channels whose window rows fill half of the first-level cache."""
    row = c.window.reach(0) * x.shape[-1] if len(c.window.kernel) > 1 else x.shape[-1]
    room = (_native.cache_bytes(1) or 1 << 15) // 2 // (x.dtype.itemsize * row)
    return min(max(room // ctx.lanes, 1) * ctx.lanes, round_up(c.channels, ctx.lanes), MAX_BLOCK)
