"""BatchNormalization that could not be folded, and a following ReLU or other plain activation in the same pass: with running
statistics one scale and shift per channel, with those of the batch the `norm` driver."""
from __future__ import annotations

import numpy as np

from ..plan.lowering import Deferred
from ..plan.tensor import Tensor, prefers_image, row_strides
from .activations import Activation
from .base import attr, op
from .channel_map import clamp, is_spatial, is_training, require_sizes, scale_and_shift
from .conv import left_in_half, left_to_readers
from .elementwise import emit_affine, emit_binary
from .epilogue import Epilogue, epilogue
from .norm import activation, by_channel, images, normalize, require


def _in_half(ctx, node, name: str) -> bool:
    """Of an image whose map is left to the convolutions that read it."""
    found = epilogue(ctx, node)
    return name == node.inputs[0].name and _is_prologue(ctx, node, found) and left_in_half(ctx, found.output)


def _is_prologue(ctx, node, found: Epilogue) -> bool:
    """Whether the map, and the activation behind it, are left to the convolutions that read it."""
    running = is_spatial(ctx, node) and not is_training(ctx, node)
    return running and clamp(found.activation) is not None and left_to_readers(ctx, found.output)


@op("BatchNormalization", half=_in_half,
    infer=lambda node, inputs: [inputs[0].shape, *[inputs[3].shape, inputs[4].shape] * 2][:len(node.outputs)])
def batch_norm(ctx, node) -> None:
    require_sizes(ctx, node)
    if is_training(ctx, node):
        _batch_statistics(ctx, node)
        return
    tables = scale_and_shift(ctx, node)
    tables = _computed(ctx, node) if tables is None else [_table(ctx, array) for array in tables]
    _running_statistics(ctx, node, tables)


def _table(ctx, array: np.ndarray) -> Tensor:
    return ctx.constant(("table", array.tobytes()), lambda: array)


def _computed(ctx, node) -> list[Tensor]:
    """Scale and shift where not all parameters are constant (a layer without running statistics, as torch.export writes it)."""
    gamma, beta, mean, var = (ctx.rows(value.name) for value in node.inputs[1:5])
    deviation, scale, product, shift = (ctx.temporary((gamma.size,)) for _ in range(4))
    emit_affine(ctx, var, ctx.scalar(1.0), ctx.scalar(attr(node, "epsilon", 1e-5)), deviation, Activation("SQRT"))
    emit_binary(ctx, "DIV", gamma, deviation, scale)
    emit_binary(ctx, "MUL", mean, scale, product)
    emit_binary(ctx, "SUB", beta, product, shift)
    return [scale, shift]


def _running_statistics(ctx, node, tables: list[Tensor]) -> None:
    """Left to the convolutions that read it, with the activation that follows, if they can do it on the way in; else one pass."""
    name, spatial, found = node.inputs[0].name, is_spatial(ctx, node), activation(ctx, node)

    def one_pass() -> None:
        _one_pass(ctx, name, spatial, found, tables)
        ctx.fused.pop(node, None)
        if found.nodes:
            ctx.fused[node] = found.nodes[-1:]  # the pass that the activation needs anyway
        elif spatial and not prefers_image(ctx.tensor(name)) and ctx.placement.read_as_image(found.output):
            ctx.fused[node] = ctx.graph.readers(found.output)  # the copy that brings the image in their order

    output, bounds = found.output, clamp(found.activation)
    if _is_prologue(ctx, node, found):
        ctx.deferred[output] = Deferred(ctx.image(name, half=True), *tables, *bounds, one_pass)
        ctx.fused[node] = ctx.graph.readers(output)
    else:
        one_pass()


def _one_pass(ctx, name: str, spatial: bool, found: Epilogue, tables: list[Tensor]) -> None:
    shape = ctx.shape(name)
    source = ctx.tensor(name)
    image = prefers_image(source) and spatial
    x = source if image else ctx.rows(name)
    out = ctx.output(found.output, image=image or (spatial and ctx.placement.read_as_image(found.output)))
    emit_affine(ctx, x, *(_seen(t, shape, spatial) for t in tables), out, found.activation)


def _seen(t: Tensor, shape, spatial: bool) -> Tensor:
    """A table by channel, or by cell, with the shape of the data."""
    return by_channel(t, shape) if spatial else t.view(shape[1:], row_strides(shape[1:])).broadcast(shape)


def _batch_statistics(ctx, node) -> None:
    """Normalise by what the batch itself has; running statistics leave as running * momentum + batch * (1 - momentum), with the
    population variance. Opsets 7 to 13 hand out those of the batch too."""
    name, spatial = node.inputs[0].name, is_spatial(ctx, node)
    shape = ctx.shape(name)
    axes = {0, *range(2, len(shape))} if spatial else {0}
    require(shape, axes)
    names = [value.name for value in node.outputs[1:]] + [""] * 4
    found = activation(ctx, node)
    x, out = images(ctx, name, found.output) if spatial else (ctx.rows(name), ctx.output(found.output, image=False))
    tables = {key: _seen(ctx.rows(value.name), shape, spatial) for key, value in zip(("gamma", "beta"), node.inputs[1:3])}
    given, momentum = {}, attr(node, "momentum", 0.9)
    for key, running, blended, saved in zip(("mean", "spread"), node.inputs[3:5], names[:2], names[2:4]):
        if blended or saved:
            given[key] = ctx.output(saved, image=False) if saved else ctx.temporary(ctx.shape(running.name))
    normalize(ctx, x, out, axes, found, tables, {key: _seen(t, shape, spatial) for key, t in given.items()},
              epsilon=attr(node, "epsilon", 1e-5))
    for key, running, blended in zip(("mean", "spread"), node.inputs[3:5], names):
        if blended:
            old, new = ctx.rows(running.name), ctx.output(blended, image=False)
            kept = ctx.temporary(new.shape)
            emit_affine(ctx, old, ctx.scalar(momentum), ctx.scalar(0.0), kept)
            emit_affine(ctx, given[key], _table(ctx, np.full(new.shape, 1.0 - momentum, np.float32)), kept, new)
