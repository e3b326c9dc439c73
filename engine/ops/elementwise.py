"""Binary elementwise operators with broadcasting, and their variadic relatives."""
from __future__ import annotations

from math import prod

import numpy as np

from .. import _native
from ..plan.lowering import Deferred
from ..plan.tensor import NUMBERS, TYPES, Tensor, prefers_image
from ..plan.walk import collapse
from .activations import Activation
from .base import NotNative, attr, counted, op
from .conv import left_in_half, left_to_readers, residual_in_half
from .typed import mapped

BINARY = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV", "Pow": "POW", "PRelu": "PRELU_SLOPE"}
VARIADIC = {"Sum": "ADD", "Mean": "ADD", "Max": "MAX", "Min": "MIN"}


def _scaled_in_half(ctx, node, name: str) -> bool:
    """Of the image that `_excitation` leaves to its readers."""
    return ctx.shape(name) == ctx.shape(node.outputs[0].name) and left_in_half(ctx, node.outputs[0].name)


def broadcast_infer(node, inputs):
    """NumPy broadcasting; before opset 7 (attribute `broadcast`) the first input's shape."""
    if "broadcast" in node.attributes or "axis" in node.attributes or node.op_type == "PRelu":
        return [inputs[0].shape]
    try:
        return [np.broadcast_shapes(*(f.shape for f in inputs))]
    except ValueError:
        return None


@op("Add", infer=broadcast_infer, half=residual_in_half, types=NUMBERS)
@op("Mul", infer=broadcast_infer, half=_scaled_in_half, types=NUMBERS)
@op("Sub", "Div", infer=broadcast_infer, types=NUMBERS)
@op("Pow", infer=broadcast_infer, types=("f32", "f64"))
@op("PRelu", infer=broadcast_infer)
def binary(ctx, node) -> None:
    if node.op_type == "Mul" and _excitation(ctx, node):
        return
    names = [v.name for v in node.inputs]
    a, b = (operand(ctx, node, i) for i in (0, 1))
    if a.dtype != np.float32 or b.dtype != np.float32:
        if a.dtype != b.dtype:
            raise NotNative(f"operands of {a.dtype} and {b.dtype}")
        mapped(ctx, f"{BINARY[node.op_type]}_{TYPES[a.dtype]}", [a, b], node.outputs[0].name)
    else:
        combine(ctx, BINARY[node.op_type], names, (a, b), node.outputs[0].name)


def _excitation(ctx, node) -> bool:
    """An image times one factor per image and channel (squeeze and excitation): left to the convolutions that read it, if all can
    scale what they read. Says whether it was."""
    output = node.outputs[0].name
    shape = ctx.shape(output)
    if len(shape) < 3 or ctx.facts[output].dtype != np.float32 or not left_to_readers(ctx, output):
        return False
    image, factor = (v.name for v in node.inputs)
    if ctx.shape(factor) == shape:
        image, factor = factor, image
    if ctx.shape(image) != shape or ctx.shape(factor) != (*shape[:2], *[1] * (len(shape) - 2)):
        return False

    def one_pass() -> None:
        combine(ctx, "MUL", (image, factor), (ctx.tensor(image), ctx.tensor(factor)), output)

    shift = ctx.constant(("zeros", prod(shape[:2])), lambda: np.zeros(prod(shape[:2]), np.float32))
    x = ctx.image(image, half=True)
    ctx.deferred[output] = Deferred(x, ctx.rows(factor), shift, -np.inf, np.inf, one_pass, by_image=shape[1])
    return True


@op("Mod", types=NUMBERS)
def mod(ctx, node) -> None:
    operands = [ctx.tensor(v.name) for v in node.inputs]
    mapped(ctx, f"{'FMOD' if attr(node, 'fmod', 0) else 'MOD'}_{TYPES[operands[0].dtype]}", operands, node.outputs[0].name)


def operand(ctx, node, index: int) -> Tensor:
    t = ctx.tensor(node.inputs[index].name)
    other = ctx.shape(node.inputs[1 - index].name)
    if index == 1 and len(t.shape) < len(other):
        if attr(node, "broadcast", 0) and "axis" in node.attributes:  # opset < 7: aligned at `axis`
            axis = counted(attr(node, "axis"), len(other))
            behind = len(other) - axis - len(t.shape)
            return t.view((*t.shape, *[1] * behind), (*t.strides, *[0] * behind))
        if node.op_type == "PRelu" and ctx.opset(node) < 7 and len(t.shape) == 1 and len(other) > 1:  # slope per channel
            return t.view((*t.shape, *[1] * (len(other) - 2)), (*t.strides, *[0] * (len(other) - 2)))
    return t


def combine(ctx, op_name: str, names, operands, output: str) -> None:
    """output = op(a, b). Full-size operands are brought into the output's layout first; broadcast ones are read as they are."""
    shape = ctx.shape(output)
    image = any(t.shape == shape and prefers_image(t) for t in operands)
    a, b = (_laid_out(ctx, name, t, shape, image) for name, t in zip(names, operands))
    a, b = a.broadcast(shape), b.broadcast(shape)
    out = ctx.output(output, image=image)
    if prod(shape):
        emit_binary(ctx, op_name, a, b, out)


def _laid_out(ctx, name: str, t: Tensor, shape, image: bool) -> Tensor:
    if t.shape != shape or ctx.tensor(name).shape != shape:
        return t
    return ctx.image(name) if image else ctx.rows(name)


def emit_binary(ctx, op_name: str, a: Tensor, b: Tensor, out: Tensor) -> None:
    extents, (sa, sb, so) = collapse(out.shape, a.strides, b.strides, out.strides)
    ctx.emit("binary", {"a": a, "b": b, "out": out}, shape=extents, a_stride=sa, b_stride=sb, out_stride=so,
             op=_native.BINARIES[op_name])


def emit_affine(ctx, x: Tensor, scale: Tensor, shift: Tensor, out: Tensor, act: Activation | None = None) -> None:
    """out = act(x * scale + shift); scale and shift, of one shape, are broadcast to out's."""
    act = act or Activation()
    scale, shift = scale.broadcast(out.shape), shift.broadcast(out.shape)
    extents, (sx, ss, so) = collapse(out.shape, x.strides, scale.strides, out.strides)
    turned = sx[-2] == 1 and ss[-2] == 0  # channels together in the output only
    if so[-1] != 1 or ss[-1] not in (0, 1) or not (sx[-1] == 1 or turned):
        extents, sx, ss, so = ([*v[1:], w] for v, w in ((extents, 1), (sx, 1), (ss, 0), (so, 1)))
    ctx.emit("affine", {"x": x, "scale": scale, "shift": shift, "out": out}, shape=extents, a_stride=sx, b_stride=ss,
             out_stride=so, op=_native.ACTS[act.act], a=act.a, b=act.b)


@op("Max", "Min", infer=broadcast_infer, types=NUMBERS)
@op("Sum", "Mean", infer=broadcast_infer)
def variadic(ctx, node) -> None:
    names, output = [v.name for v in node.inputs], node.outputs[0].name
    kind, shape, dtype = VARIADIC[node.op_type], ctx.shape(output), ctx.facts[output].dtype
    if ctx.opset(node) < 8 and any(ctx.shape(name) != shape for name in names):
        raise ValueError(f"operands of shapes {[list(ctx.shape(name)) for name in names]}, which broadcast from opset 8 on")
    if len(names) == 1:
        source = ctx.tensor(names[0])
        ctx.copy(source, ctx.output(output, image=False, like=source))
        return
    if dtype != np.float32:
        loop, operands = f"{kind}_{TYPES[dtype]}", [ctx.tensor(n) for n in names]
        mapped(ctx, loop, operands[:2], output)
        for more in operands[2:]:
            ctx.map(loop, [ctx.values[output], more], ctx.values[output])
        return
    combine(ctx, kind, names[:2], [ctx.tensor(n) for n in names[:2]], output)
    out = ctx.values[output]
    for name in names[2:]:
        emit_binary(ctx, kind, out, ctx.tensor(name).broadcast(shape), out)
    if node.op_type == "Mean":
        emit_binary(ctx, "MUL", out, ctx.scalar(1.0 / len(names)).broadcast(shape), out)
