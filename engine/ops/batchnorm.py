"""BatchNormalization with running statistics that could not be folded: one scale and shift per channel, and a following ReLU or
other plain activation in the same pass."""
from __future__ import annotations

import numpy as np

from .. import _native
from ..plan.lowering import Deferred
from ..plan.tensor import Tensor
from ..plan.walk import collapse
from .activations import prefers_image
from .base import NotNative, attr, op
from .conv import takes_prologue
from .epilogue import epilogue, take


def is_training(ctx, node) -> bool:
    """Whether the statistics come from the batch: `training_mode` (opset 14), more outputs (7-13), `is_test` (before 7)."""
    opset = ctx.opset(node)
    if opset >= 14:
        return bool(attr(node, "training_mode", 0))
    if opset < 7 and not attr(node, "is_test", 0):
        return True
    return len([o for o in node.outputs if o.name]) > 1


@op("BatchNormalization", infer=lambda node, inputs: [inputs[0].shape] if len([o for o in node.outputs if o.name]) == 1 else None)
def batch_norm(ctx, node) -> None:
    if is_training(ctx, node) or not attr(node, "spatial", 1):
        raise NotNative("statistics of the batch or per pixel")
    arrays = [ctx.constant_value(v) for v in node.inputs[1:5]]
    if any(a is None for a in arrays):
        raise NotNative("statistics that are computed at run time")
    if any(a.size != ctx.shape(node.inputs[0].name)[1] for a in arrays):
        raise ValueError(f"statistics of {[a.size for a in arrays]} channels")
    gamma, beta, mean, var = (a.astype(np.float64) for a in arrays)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(var + attr(node, "epsilon", 1e-5))
        shift = beta - mean * scale
    affine(ctx, node, scale, shift)


def affine(ctx, node, scale: np.ndarray, shift: np.ndarray) -> None:
    """x * scale + shift over dimension 1, with the activation that follows: left to the convolutions that read it if they can do it
    on the way in, else one pass."""
    found = epilogue(ctx, node)
    if found.residual is not None or found.activation.slope is not None:
        found = type(found)(node.outputs[0].name)
    take(ctx, found)
    tables = [ctx.constant(("affine", t.tobytes()), lambda t=t: t) for t in (scale.astype(np.float32), shift.astype(np.float32))]

    def one_pass() -> None:
        _emit(ctx, node, found, *tables)
        ctx.fused.pop(node.name, None)
        if found.nodes:
            ctx.fused[node.name] = found.nodes[-1].name  # the pass that the activation needs anyway

    act, output = found.activation, found.output
    low, high = {"IDENTITY": (-np.inf, np.inf), "RELU": (0.0, np.inf), "CLIP": (act.a, act.b)}.get(act.act, (None, None))
    readers = ctx.graph.readers(output)
    if low is not None and readers and output not in ctx.graph.outputs and all(takes_prologue(ctx, r, output) for r in readers):
        ctx.deferred[output] = Deferred(ctx.image(node.inputs[0].name), *tables, low, high, one_pass)
        ctx.fused[node.name] = ", ".join(r.name for r in readers)
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
