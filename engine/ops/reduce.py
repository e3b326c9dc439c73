"""ReduceSum and its family, and global pooling, which is a reduction over the pixels."""
from __future__ import annotations

from math import prod

from .. import _native
from ..plan.tensor import BF16, prefers_image
from .base import NotNative, attr, counted, integers, op
from .space import check_rank, space

REDUCE = {
    "ReduceSum": "SUM", "ReduceMean": "MEAN", "ReduceMax": "MAX", "ReduceMin": "MIN", "ReduceProd": "PROD",
    "ReduceSumSquare": "SUM_SQUARE", "ReduceL1": "L1", "ReduceL2": "L2", "ReduceLogSum": "LOG_SUM",
    "ReduceLogSumExp": "LOG_SUM_EXP",
}
GLOBAL = {"GlobalAveragePool": "MEAN", "GlobalMaxPool": "MAX"}
UNCHANGED = {"SUM", "MEAN", "MAX", "MIN", "PROD", "LOG_SUM_EXP"}  # of a single element


def _over_pixels(ctx, node, name: str) -> bool:
    """Whether an image is reduced to one number for each channel."""
    axes = attr(node, "axes") if len(node.inputs) < 2 else ctx.constant_value(node.inputs[1])
    rank = len(ctx.shape(name))
    return node.op_type in GLOBAL or (axes is not None and {int(a) % rank for a in axes} == set(range(2, rank)))


def _reduced_shape(node, inputs) -> list[list[int]] | None:
    shape, axes = inputs[0].shape, attr(node, "axes")
    if len(inputs) > 1:
        axes = integers(inputs[1])
    if not axes or not all(-len(shape) <= axis < len(shape) for axis in axes):
        return None
    gone, keep = {axis % len(shape) for axis in axes}, attr(node, "keepdims", 1)
    return [[1 if i in gone else n for i, n in enumerate(shape) if keep or i not in gone]] if len(gone) == len(axes) else None


@op(*REDUCE, infer=_reduced_shape, half=_over_pixels)
def reduce(ctx, node) -> None:
    name = node.inputs[0].name
    rank = len(ctx.shape(name))
    axes = attr(node, "axes")
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = ctx.need(node.inputs[1])
        axes = None if given is None else [int(a) for a in given.reshape(-1)]
    if not axes:
        if attr(node, "noop_with_empty_axes", 0):
            _nothing(ctx, node)
            return
        axes = range(rank)
    emit_reduce(ctx, node, REDUCE[node.op_type], {counted(a, rank) for a in axes} if rank else set())


def _nothing(ctx, node) -> None:
    """noop_with_empty_axes: each element is reduced by itself."""
    if REDUCE[node.op_type] not in UNCHANGED:
        raise NotNative("a reduction over no axes")
    ctx.bind(node.outputs[0].name, ctx.tensor(node.inputs[0].name))


@op(*GLOBAL, half=_over_pixels)
def global_pool(ctx, node) -> None:
    emit_reduce(ctx, node, GLOBAL[node.op_type], set(range(2, len(ctx.shape(node.inputs[0].name)))))


def emit_reduce(ctx, node, kind: str, axes: set[int]) -> None:
    """out = reduction over the axes; whether they are kept as 1 is read off the output's shape."""
    x = ctx.tensor(node.inputs[0].name, half=True)
    if x.dtype == BF16 and not (axes == set(range(2, len(x.shape))) and x.shape[1] > 1 and x.is_image()):
        x = ctx.wide(x)
    kept = [i for i in range(len(x.shape)) if i not in axes]
    check_rank(x.shape, axes)
    gone = sorted(axes)
    reduced, (in_reduced,) = space([x.shape[i] for i in gone], [x.strides[i] for i in gone], ordered=True)
    shape = ctx.shape(node.outputs[0].name)
    same_rank = len(shape) == len(x.shape)
    out = ctx.output(node.outputs[0].name, image=same_rank and prefers_image(x))
    if prod(shape) == 0:
        return
    out_strides = [out.strides[i] for i in kept] if same_rank else out.strides
    extents, (in_kept, out_kept) = space([x.shape[i] for i in kept], [x.strides[i] for i in kept], out_strides,
                                         ordered=True)
    ctx.emit("reduce", {"in": x, "out": out}, kept=extents, reduced=reduced, in_kept=in_kept, in_reduced=in_reduced,
             out_stride=out_kept, op=_native.REDUCTIONS[kind], half=x.dtype == BF16)
