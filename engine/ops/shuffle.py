"""DepthToSpace and SpaceToDepth: one copy between two views of six dimensions."""
from __future__ import annotations

from ..plan.tensor import ANY, F32, Tensor, prefers_image
from .base import NotNative, attr, op


@op("DepthToSpace", types=ANY)
def depth_to_space(ctx, node) -> None:
    x, out = _operands(ctx, node)
    block = attr(node, "blocksize")
    ctx.copy(_channels_split(x, block, attr(node, "mode", "DCR") == "CRD"), _pixels_split(out, block))


@op("SpaceToDepth", types=ANY)
def space_to_depth(ctx, node) -> None:
    x, out = _operands(ctx, node)
    block = attr(node, "blocksize")
    ctx.copy(_pixels_split(x, block), _channels_split(out, block, attr(node, "mode", "DCR") == "CRD"))


def _operands(ctx, node) -> tuple[Tensor, Tensor]:
    x = ctx.tensor(node.inputs[0].name)
    if len(x.shape) != 4:
        raise NotNative(f"rank {len(x.shape)}")
    return x, ctx.output(node.outputs[0].name, image=x.dtype == F32 and prefers_image(x))


def _pixels_split(t: Tensor, block: int) -> Tensor:
    """(N, C, H * b, W * b) seen as (N, C, H, b, W, b)."""
    n, c, h, w = t.shape
    sn, sc, sh, sw = t.strides
    return t.view((n, c, h // block, block, w // block, block), (sn, sc, sh * block, sh, sw * block, sw))


def _channels_split(t: Tensor, block: int, depth_first: bool) -> Tensor:
    """(N, C * b * b, H, W) seen as (N, C, H, b, W, b); depth_first: the channels are (C, b, b), not (b, b, C)."""
    n, c, h, w = t.shape
    sn, sc, sh, sw = t.strides
    depth = c // (block * block)
    outer, by, bx = (block * block, block, 1) if depth_first else (1, block * depth, depth)
    return t.view((n, depth, h, block, w, block), (sn, outer * sc, sh, by * sc, sw, bx * sc))
