"""Forward folding: a map that no layer before it could take goes into the weights of all layers that read it.

    x -- BatchNorm --+-- Conv 1x1          y = W (s x + t) + b  =  (W s) x + (b + W t)
                     +-- Flatten -- Gemm

Zero padding would have to become -t/s. Where this is one number for all channels (a model of one colour, pixels made -1 to 1)
a Pad with it goes before the convolution; elsewhere a padded convolution takes scales only. (Correcting the border by adding a
constant image would be exact too. Measured, it costs more than the BatchNorm, in infold and in onnxruntime; see docs/folding.md.)
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from . import arithmetic, linear
from .affine import Affine
from .context import GraphContext, attribute, is_op, node_name
from .movement import MOVEMENTS, moved_forward
from .operands import adds_border
from .rounding import rounded


def apply(context: GraphContext) -> bool:
    """Fold BatchNormalizations and per-channel arithmetic into what follows, where they can go entirely."""
    modified = False
    for node in context.nodes():
        if node.graph is None:
            continue
        found = arithmetic.read(context, node)
        if found is not None and isinstance(found.step, Affine) and not _may_belong_to_an_activation(context, node, found):
            modified |= _fold(context, node, found.source, found.step)
    return modified


def _may_belong_to_an_activation(context: GraphContext, node: ir.Node, found: arithmetic.Arithmetic) -> bool:
    """Arithmetic with one number, as the last step of x * clip(x + 3, 0, 6) / 6: it is to stay recognisable."""
    return found.step.scale.size == 1 and not is_op(node, "BatchNormalization") \
        and not _of_the_input(context, node.inputs[found.source])


def _of_the_input(context: GraphContext, value: ir.Value) -> bool:
    """Whether the value is a graph input, or comes from one by arithmetic with constants alone."""
    while (node := value.producer()) is not None:
        found = arithmetic.read(context, node)
        if found is None:
            return False
        value = node.inputs[found.source]
    return value.is_graph_input()


def _fold(context: GraphContext, node: ir.Node, index: int, step: Affine) -> bool:
    ways = _Ways(context, node, step)
    refusal = ways.plan()
    if refusal is not None:
        if is_op(node, "BatchNormalization") and not node.outputs[0].is_graph_output():
            context.not_forward(node, refusal)
        return False
    context.carry_out(ways.changes, node, ways.layers)
    node.outputs[0].replace_all_uses_with(node.inputs[index])
    context.remove(node)
    return True


class _Ways:
    """The ways of one map forward to the weights: the changes to make on them, and the layers with what they take."""

    def __init__(self, context: GraphContext, start: ir.Node, step: Affine) -> None:
        self.context, self.start, self.step = context, start, step
        self.changes: list[Callable[[], object]] = []
        self.layers: dict[ir.Node, Affine] = {}

    def plan(self) -> str | None:
        """Prepare the changes of the weights, which costs most, last; returns the reason for a refusal."""
        refusal = self.out_of(self.start.outputs[0], self.step) or (None if self.layers else "only its shape is read")
        for node, total in self.layers.items() if refusal is None else ():
            change = self._absorbed(node, total)
            if isinstance(change, str):
                return change
            self.changes.append(change)
        return refusal

    def out_of(self, value: ir.Value, total: Affine) -> str | None:
        """Plan for the readers of `value` to read instead what it is the given map of; else the reason why not."""
        if value.is_graph_output() or not value.uses():
            return "its output is a graph output"
        return next((refusal for use in value.uses()
                     if (refusal := self._into(use.node, use.idx, total)) is not None), None)

    def _into(self, node: ir.Node, index: int, total: Affine) -> str | None:
        what = f"{node.op_type} '{node_name(node)}'"
        if node.graph is not self.start.graph or index != 0:
            return f"{what} reads it"
        if is_op(node, "Shape", "Size"):  # of the map's argument it is the same
            return None
        if is_op(node, "Conv", "Gemm", "MatMul"):
            self.layers[node] = total
            return linear.refusal(self.context, node)
        if is_op(node, "Relu", "LeakyRelu") and not total.shift.any() and (total.scale > 0).all():
            moved = total
        elif node.domain == "" and node.op_type in MOVEMENTS and len(node.outputs) == 1:
            moved = moved_forward(self.context, node, total)
        else:
            one_pass = is_op(node, "Relu", "Clip") and self.context.sole_user(self.start.outputs[0]) is node
            return f"{what} reads it (a session runs both in one pass)" if one_pass else f"{what} reads it"
        if isinstance(moved, str):
            return moved
        self.changes.append(lambda: self.context.rename(node.outputs[0]))
        return self.out_of(node.outputs[0], moved)

    def _absorbed(self, node: ir.Node, total: Affine) -> Callable[[], object] | str:
        """What puts the map of the first input into the weights and the bias."""
        axis = 1 if is_op(node, "Conv") else total.scale.ndim - 1
        if any(size > 1 for each, size in enumerate(total.scale.shape) if each != axis):
            return f"it varies along an axis over which {node.op_type} '{node_name(node)}' does not sum"
        weight = self.context.array(node.inputs[1])
        wide, border = weight.astype(np.float64), 0.0
        match node.op_type:
            case "Conv":
                border = self._border(node, total)
                if isinstance(border, str):
                    return border
                group = attribute(node, "group", 1)
                wide = wide.reshape(group, -1, *weight.shape[1:])
                shape = (group, 1, weight.shape[1], *(1,) * (weight.ndim - 2))
                extra = np.sum(wide * _vector(total.shift, group * weight.shape[1]).reshape(shape),
                               axis=tuple(range(2, wide.ndim))).ravel()
                scaled = (wide * _vector(total.scale, group * weight.shape[1]).reshape(shape)).reshape(weight.shape)
            case "Gemm":
                if attribute(node, "transA", 0) or self.context.opset(node) < 7:
                    return f"Gemm '{node_name(node)}' transposes its input or is of an old operator set"
                inner = wide.T if attribute(node, "transB", 0) else wide
                extra = attribute(node, "alpha", 1.0) * (_vector(total.shift, len(inner)) @ inner)
                scaled = inner * _vector(total.scale, len(inner))[:, None]
                scaled = scaled.T if attribute(node, "transB", 0) else scaled
            case _:
                if wide.ndim != 2:
                    return f"the weights of MatMul '{node_name(node)}' are not a matrix"
                if total.shift.any() and not is_op(self.start, "BatchNormalization"):
                    return f"MatMul '{node_name(node)}' has no bias"
                extra = _vector(total.shift, len(wide)) @ wide
                scaled = wide * _vector(total.scale, len(wide))[:, None]
        return self._change(node, weight.dtype, scaled, extra, border)

    def _border(self, node: ir.Node, total: Affine) -> float | str:
        """The number that zeros around the input of a Conv have to become, or why it is not one number."""
        if not total.shift.any() or not adds_border(node):
            return 0.0
        automatic = attribute(node, "auto_pad", "NOTSET") != "NOTSET"
        numbers = np.unique((-total.shift / total.scale).astype(np.float32)) if total.scale.all() else ()
        if len(numbers) == 1 and len(self.layers) == 1 and not automatic and self.context.opset(node) >= 2:
            return float(numbers[0])
        return f"Conv '{node_name(node)}' pads with zeros, which its shift would change"

    def _change(self, node: ir.Node, kind: np.dtype, scaled: np.ndarray, extra: np.ndarray, border: float) -> Callable | str:
        context, name = self.context, node.inputs[1].name
        bias = context.array(node.inputs[2]) if len(node.inputs) > 2 else None
        if bias is not None:
            extra = attribute(node, "beta", 1.0) * bias.astype(np.float64) + extra
        weight, shift, fill = (rounded(np.asarray(array), kind) for array in (scaled, extra, border))
        if weight is None or shift is None or fill is None:
            return f"the weights of {node.op_type} '{node_name(node)}' would overflow or are not finite"

        def change() -> None:
            context.set_constant(node, 1, weight, f"{name}_folded")
            if is_op(node, "MatMul"):
                if shift.any():
                    _add(context, node, shift, f"{name}_bias")
                return
            if bias is not None or shift.any():
                context.set_constant(node, 2, shift, f"{name}_bias")
            if is_op(node, "Gemm"):
                node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
            if fill:
                _pad(context, node, fill)

        return change


def _pad(context: GraphContext, node: ir.Node, fill: np.ndarray) -> None:
    """Do the padding of a Conv in a Pad before it, with another number than zero."""
    source, pads = node.inputs[0], attribute(node, "pads")
    half = len(pads) // 2
    pads = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    if context.opset(node) < 11:
        pad = ir.node("Pad", [source], {"pads": pads.tolist(), "value": float(fill)})
    else:
        pad = ir.node("Pad", [source, context.constant(pads, f"{source.name}_pads"),
                              context.constant(fill, f"{source.name}_border")])
    padded = pad.outputs[0]
    padded.name, padded.type = context.unique_name(f"{source.name}_padded"), source.type
    if source.shape is not None and all(isinstance(size, int) for size in source.shape[2:]):
        sizes = (size + a + b for size, a, b in zip(source.shape[2:], pads[2:], pads[half + 4:]))
        padded.shape = ir.Shape([*source.shape[:2], *sizes])
    node.prepend(pad)
    node.replace_input_with(0, padded)
    node.attributes["pads"] = ir.AttrInt64s("pads", [0] * 2 * half)


def _add(context: GraphContext, node: ir.Node, shift: np.ndarray, name: str) -> None:
    context.put_behind(node, ir.node("Add", [node.outputs[0], context.constant(shift, name)]), "folded")


def _vector(array: np.ndarray, count: int) -> np.ndarray:
    return np.broadcast_to(array.ravel(), count)
