"""Local response normalisation."""
from __future__ import annotations

from .base import NotNative, attr, op, same_shape
from .space import space

MAX_WINDOW = 128  # channels: the driver counts up to 64 on each side


@op("LRN", infer=same_shape)
def lrn(ctx, node) -> None:
    """Across channels: half of the window before, half (the larger, if even) after."""
    name = node.inputs[0].name
    shape, size = ctx.shape(name), attr(node, "size")
    if not 3 <= len(shape) <= 5 or not 1 <= size <= MAX_WINDOW:
        raise NotNative(f"rank {len(shape)}, window {size}")
    x, out = ctx.image(name), ctx.output(node.outputs[0].name, image=True)
    order = [0, *range(2, len(shape))]
    extents, (x_steps, out_steps) = space(*([t[i] for i in order] for t in (shape, x.strides, out.strides)))
    ctx.emit("lrn", {"in": x, "out": out}, n=extents, in_stride=x_steps, out_stride=out_steps, channels=shape[1],
             before=(size - 1) // 2, after=size // 2, scale=attr(node, "alpha", 1e-4) / size,
             bias=attr(node, "bias", 1.0), beta=attr(node, "beta", 0.75))
