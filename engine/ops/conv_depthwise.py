"""Depthwise convolution: one filter per channel, no sum over channels to block; bound by memory, not by arithmetic."""
from __future__ import annotations

from math import prod

import numpy as np

from .. import _native
from ..plan.choice import Way
from ..plan.memory import round_up
from .convolution import Convolution
from .epilogue import Epilogue, epilogue, take
from .product import pad4, slope_of, vector


def depthwise(ctx, c: Convolution) -> Way | None:
    if not c.groups == c.channels == c.columns or c.groups == 1 or c.weight is None:
        return None
    return Way("depthwise", c.multiply_adds / ctx.lanes, lambda: _emit(ctx, c))


def _emit(ctx, c: Convolution) -> None:
    found = epilogue(ctx, c.node)
    if found.residual is not None:
        found = Epilogue(c.node.outputs[0].name)
    take(ctx, found)
    x = ctx.image(c.x, c.border)
    out = ctx.output(found.output, image=True)
    width, taps, weight, act = round_up(c.channels, ctx.lanes), tuple(c.taps(x)), c.weight, found.activation

    def make():
        table = np.zeros((len(taps), width), np.float32)
        table[:, :c.channels] = weight.reshape(c.channels, -1).T
        return table

    ctx.emit("depthwise",
             {"in": x, "w": ctx.constant((ctx.isa, "depthwise", *ctx.key(c.w)), make, shared=True),
              "bias": vector(ctx, c.bias, c.channels), "out": out,
              "tap": ctx.constant(("taps", taps), lambda: np.array(taps, np.int64)), "slope": slope_of(ctx, found)},
             flops=2 * prod(c.pixels()) * len(taps) * c.channels, n=pad4(c.pixels(), 1), in_stride=pad4(c.steps(x), 0),
             out_stride=pad4((out.strides[0], *out.strides[2:]), 0), taps=len(taps), channels=c.channels, w_stride=width,
             act=_native.ACTS[act.act], a=act.a, b=act.b)
