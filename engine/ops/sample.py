"""Images read at points that the model computes: RoiAlign and GridSample."""
from __future__ import annotations

from .base import NotNative, attr, op
from .index import indices

TAPS = {"nearest": 1, "linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}
PADDING = {"zeros": 0, "border": 1, "reflection": 2}
MOST_POINTS = 512  # of a bin along an axis


@op("RoiAlign")
def roi_align(ctx, node) -> None:
    rois, output = ctx.rows(node.inputs[1].name), node.outputs[0].name
    sampling = attr(node, "sampling_ratio", 0)
    if attr(node, "mode", "avg") != "avg":
        raise NotNative("the maximum of weighted neighbours")
    if sampling > MOST_POINTS:
        raise NotNative(f"more than {MOST_POINTS} points along an axis of a bin")
    default = "half_pixel" if ctx.opset(node) >= 16 else "output_half_pixel"
    half = attr(node, "coordinate_transformation_mode", default) == "half_pixel"
    x = ctx.image(node.inputs[0].name)
    index = indices(ctx, node.inputs[2].name)
    out = ctx.output(output, image=True)
    count, channels, *pool = out.shape
    if rois.shape != (count, 4) or index.shape != (count,) or rois.dtype != x.dtype:
        raise ValueError(f"regions of shape {list(rois.shape)} with {list(index.shape)} indices")
    ctx.emit("roi_align", {"in": x, "rois": rois, "index": index, "out": out}, rois=count, size=x.shape[2:], pool=pool,
             channels=channels, batch=x.shape[0], in_stride=[x.strides[d] for d in (0, 2, 3)],
             out_stride=[out.strides[d] for d in (0, 2, 3)], sampling=max(0, sampling), half_pixel=half,
             scale=attr(node, "spatial_scale", 1.0))


@op("GridSample")
def grid_sample(ctx, node) -> None:
    shape = ctx.shape(node.inputs[0].name)
    if len(shape) != 4 or 0 in shape:
        raise NotNative(f"an input of shape {list(shape)}")
    x, grid = ctx.image(node.inputs[0].name), ctx.rows(node.inputs[1].name)
    out = ctx.output(node.outputs[0].name, image=True)
    if grid.shape != (x.shape[0], *out.shape[2:], 2) or grid.dtype != x.dtype:
        raise ValueError(f"a grid of shape {list(grid.shape)} for {list(out.shape)}")
    ctx.emit("grid_sample", {"in": x, "grid": grid, "out": out}, batch=x.shape[0], size=x.shape[2:], points=out.shape[2:],
             channels=x.shape[1], in_stride=[x.strides[d] for d in (0, 2, 3)], out_stride=[out.strides[d] for d in (0, 2, 3)],
             taps=TAPS[attr(node, "mode", "linear")], padding=PADDING[attr(node, "padding_mode", "zeros")],
             corners=attr(node, "align_corners", 0))
