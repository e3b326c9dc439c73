"""Elementwise operations of any data type: one step of the driver `map`."""
from __future__ import annotations

from .. import _native
from ..plan.tensor import Tensor
from ..plan.walk import collapse
from .base import NotNative


def mapped(ctx, loop: str, operands: list[Tensor], output: str) -> None:
    """output = loop(operands), a typed loop, broadcast; the result lies as the first operand of its size does."""
    if loop not in _native.LOOPS:
        raise NotNative(f"no loop {loop}")
    shape = ctx.shape(output)
    like = next((t for t in operands if t.shape == shape), None)
    strides = [t.broadcast(shape).strides for t in operands]
    collapse(shape, *strides, like.strides if like is not None else strides[0])
    ctx.map(loop, operands, ctx.output(output, image=False, like=like))
