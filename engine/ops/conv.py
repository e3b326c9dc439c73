"""Conv, 1-D to 3-D. Each algorithm has a file of its own and says, for a convolution, whether and how fast it can do it."""
from __future__ import annotations

from ..plan.choice import Way
from .base import NotNative, attr, op
from .conv_bf16 import BF16
from .conv_chain import chain
from .conv_depthwise import depthwise, grouped
from .conv_direct import MAX_STAGED_K, direct
from .conv_taps import taps
from .conv_winograd import winograd2, winograd4
from .convolution import conv_border, conv_shape, convolution, window_of

ALGORITHMS = (depthwise, grouped, direct, winograd4, winograd2, taps, *BF16, chain)  # each: (ctx, Convolution) -> Way | None


def ways_of(ctx, node) -> list[Way]:
    wanted = convolution(ctx, node)
    return [way for algorithm in ALGORITHMS if (way := algorithm(ctx, wanted)) is not None]


def way_of(ctx, node) -> Way | None:
    """The algorithm that computes the convolution, or None if the fallback does."""
    try:
        return ctx.choose(node, ways_of(ctx, node))
    except NotNative:
        return None


def in_half(ctx, node, name: str) -> bool:
    """Whether the node is a convolution that works on images of bf16 numbers (see `Op.half`)."""
    reads = node.op_type == "Conv" and not node.domain and node.inputs[0].name == name
    return reads and (way := way_of(ctx, node)) is not None and way.half


def border(ctx, node, index: int) -> tuple[tuple[int, int], ...]:
    """The zeros that the node's algorithm reads around its input."""
    zeros = conv_border(ctx, node, index)
    wanted = any(after or before for before, after in zeros) and (way := way_of(ctx, node)) is not None and way.padded
    return zeros if wanted else ()


@op("Conv", infer=conv_shape, border=border, half=in_half)
def conv(ctx, node) -> None:
    ctx.compute(ways_of(ctx, node))


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


def left_in_half(ctx, name: str) -> bool:
    """The same, where those convolutions read images of bf16 numbers."""
    return left_to_readers(ctx, name) and all(in_half(ctx, r, name) for r in ctx.graph.readers(name))


def residual_in_half(ctx, node, name: str) -> bool:
    """Whether a convolution takes the node, an Add, into its epilogue and reads the other operand, `name`, as bf16 numbers."""
    others = [v for v in node.inputs if v.name != name]
    made = others[0].producer() if len(others) == 1 else None
    return made is not None and ctx.graph.only_reader(others[0].name) is node and in_half(ctx, made, made.inputs[0].name)
