"""Images read at points that the model computes: RoiAlign, MaxRoiPool and GridSample."""
from __future__ import annotations

import numpy as np

from ..plan.tensor import Tensor
from .base import NotNative, attr, op
from .index import indices

TAPS = {"nearest": 1, "linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}
PADDING = {"zeros": 0, "border": 1, "reflection": 2}
MODES = {"avg": 0, "max": 1, "pixels": 2}
MOST_POINTS = 512  # of a bin along an axis; of MaxRoiPool half the pixels of the image


@op("RoiAlign")
def roi_align(ctx, node) -> None:
    sampling = attr(node, "sampling_ratio", 0)
    if sampling > MOST_POINTS:  # the reference would take years
        raise ValueError(f"{sampling} points along an axis of a bin, more than {MOST_POINTS}")
    default = "half_pixel" if ctx.opset(node) >= 16 else "output_half_pixel"
    half = attr(node, "coordinate_transformation_mode", default) == "half_pixel"
    rois, index = ctx.rows(node.inputs[1].name), indices(ctx, node.inputs[2].name)
    _regions(ctx, node, rois, index, mode=MODES[attr(node, "mode", "avg")], sampling=max(0, sampling), half_pixel=half)


@op("MaxRoiPool")
def max_roi_pool(ctx, node) -> None:
    shape, rois = ctx.shape(node.inputs[0].name), ctx.tensor(node.inputs[1].name)
    if len(shape) != 4 or max(shape[2:]) > 2 * MOST_POINTS:
        raise NotNative(f"an image of more than {2 * MOST_POINTS} pixels along an axis")
    if len(rois.shape) != 2 or rois.shape[1] != 5:
        raise ValueError(f"regions of shape {list(rois.shape)}")
    number = rois.view(rois.shape[:1], rois.strides[:1])
    corners, corner = ctx.temporary((rois.shape[0], 4), rois.dtype), rois.view((rois.shape[0], 4), rois.strides, rois.strides[1])
    index = ctx.cast(number, np.int64)
    ctx.copy(corner, corners)
    _regions(ctx, node, corners, index, mode=MODES["pixels"], sampling=0, half_pixel=False)


def _regions(ctx, node, rois: Tensor, index: Tensor, **params) -> None:
    x, out = ctx.image(node.inputs[0].name), ctx.output(node.outputs[0].name, image=True)
    count, channels, *pool = out.shape
    if rois.shape != (count, 4) or index.shape != (count,) or rois.dtype != x.dtype:
        raise ValueError(f"regions of shape {list(rois.shape)} with {list(index.shape)} indices")
    ctx.emit("roi_align", {"in": x, "rois": rois, "index": index, "out": out}, rois=count, size=x.shape[2:], pool=pool,
             channels=channels, batch=x.shape[0], in_stride=[x.strides[d] for d in (0, 2, 3)],
             out_stride=[out.strides[d] for d in (0, 2, 3)], scale=attr(node, "spatial_scale", 1.0), **params)


@op("GridSample")
def grid_sample(ctx, node) -> None:
    shape, taps = ctx.shape(node.inputs[0].name), TAPS[attr(node, "mode", "linear")]
    axes = len(shape) - 2
    if axes not in (2, 3) or 0 in shape or axes + taps > 6:
        raise NotNative(f"an input of shape {list(shape)}")
    x, grid = ctx.image(node.inputs[0].name), ctx.rows(node.inputs[1].name)
    out = ctx.output(node.outputs[0].name, image=True)
    if grid.shape != (x.shape[0], *out.shape[2:], axes) or grid.dtype != x.dtype:
        raise ValueError(f"a grid of shape {list(grid.shape)} for {list(out.shape)}")

    def volume(values, one: int) -> list[int]:
        return [*[one] * (3 - axes), *values[2:]]

    ctx.emit("grid_sample", {"in": x, "grid": grid, "out": out}, batch=x.shape[0], size=volume(x.shape, 1),
             points=volume(out.shape, 1), channels=x.shape[1], in_stride=[x.strides[0], *volume(x.strides, 0)],
             out_stride=[out.strides[0], *volume(out.strides, 0)], axes=axes, taps=taps,
             padding=PADDING[attr(node, "padding_mode", "zeros")], corners=attr(node, "align_corners", 0))
