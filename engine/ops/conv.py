"""Conv, 1-D to 3-D. Each algorithm has a file of its own and says, for a convolution, whether and how fast it can do it."""
from __future__ import annotations

from ..plan.choice import choose
from .base import NotNative, attr, op
from .conv_bf16 import BF16
from .conv_chain import chain
from .conv_depthwise import depthwise
from .conv_direct import MAX_STAGED_K, direct
from .conv_winograd import winograd2, winograd4
from .convolution import conv_border, conv_shape, convolution, window_of

ALGORITHMS = (depthwise, direct, winograd4, winograd2, *BF16, chain)  # each: (ctx, Convolution) -> Way | None


@op("Conv", infer=conv_shape, border=conv_border)
def conv(ctx, node) -> None:
    wanted = convolution(ctx, node)
    ways = [way for algorithm in ALGORITHMS if (way := algorithm(ctx, wanted)) is not None]
    choose(node.name, ways, ctx.options.algorithms).emit()


def takes_prologue(ctx, node, name: str) -> bool:
    """Whether the node is a convolution that can apply a per-channel map to its input `name` while reading it: a 1x1 one without
    padding. (Under a larger kernel every pixel would be mapped once per tap, and zero padding must stay zero.)"""
    if node.op_type != "Conv" or node.domain or node.inputs[0].name != name or attr(node, "group", 1) != 1:
        return False
    if len(ctx.shape(name)) < 3 or ctx.constant_value(node.inputs[1]) is None or ctx.shape(name)[1] > MAX_STAGED_K:
        return False
    try:
        win = window_of(ctx, node)
    except NotNative:
        return False
    return win.is_point()


def left_to_readers(ctx, name: str) -> bool:
    """Whether a map that gives the value `name` need not run by itself: only convolutions that take it as a prologue read it."""
    readers = ctx.graph.readers(name)
    return bool(readers) and name not in ctx.graph.outputs and all(takes_prologue(ctx, r, name) for r in readers)
