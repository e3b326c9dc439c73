"""BatchNormalization with running statistics that could not be folded: one scale and shift per channel, and a following ReLU or
other plain activation in the same pass."""
from __future__ import annotations

from .. import _native
from ..plan.lowering import Deferred
from ..plan.tensor import Tensor
from ..plan.walk import collapse
from .activations import prefers_image
from .base import op
from .channel_map import channel_map, clamp
from .conv import takes_prologue
from .epilogue import epilogue, take


@op("BatchNormalization", infer=lambda node, inputs: [inputs[0].shape] if len([o for o in node.outputs if o.name]) == 1 else None)
def batch_norm(ctx, node) -> None:
    """Left to the convolutions that read it, with the activation that follows, if they can do it on the way in; else one pass."""
    mapped, found = channel_map(ctx, node), epilogue(ctx, node)
    take(ctx, found)
    tables = [ctx.constant(("affine", t.tobytes()), lambda t=t: t) for t in (mapped.scale, mapped.shift)]

    def one_pass() -> None:
        _emit(ctx, node, found, *tables)
        ctx.fused.pop(node, None)
        if found.nodes:
            ctx.fused[node] = found.nodes[-1:]  # the pass that the activation needs anyway

    output, bounds = found.output, clamp(found.activation)
    readers = ctx.graph.readers(output)
    if bounds is not None and readers and output not in ctx.graph.outputs and all(takes_prologue(ctx, r, output) for r in readers):
        ctx.deferred[output] = Deferred(ctx.image(node.inputs[0].name), *tables, *bounds, one_pass)
        ctx.fused[node] = readers
    else:
        one_pass()


def _emit(ctx, node, found, scale: Tensor, shift: Tensor) -> None:
    shape = ctx.shape(node.inputs[0].name)
    source = ctx.tensor(node.inputs[0].name)
    image = prefers_image(source)
    x = source if image else ctx.rows(node.inputs[0].name)
    out = ctx.output(found.output, image=image)
    tail = len(shape) - 2
    views = [t.view(shape, [0, 1] + [0] * tail) if len(shape) > 1 else t.broadcast(shape) for t in (scale, shift)]
    extents, (sx, ss, so) = collapse(shape, x.strides, views[0].strides, out.strides)
    if sx[-1] != 1 or so[-1] != 1 or ss[-1] not in (0, 1):
        extents, sx, ss, so = ([*v[1:], w] for v, w in ((extents, 1), (sx, 1), (ss, 0), (so, 1)))
    act = found.activation
    ctx.emit("affine", {"x": x, "scale": views[0], "shift": views[1], "out": out}, shape=extents, a_stride=sx, b_stride=ss,
             out_stride=so, op=_native.ACTS[act.act], a=act.a, b=act.b)
