"""Taps that meet nothing but padding go: DeepLab's convolutions dilated by 24 and 36 are 1x1 on images of 14 x 14 pixels."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .context import GraphContext, attribute, is_op
from .shapes import derived


def apply(context: GraphContext) -> bool:
    """Drop the outer taps of each convolution that lie outside its image wherever the window is."""
    found = [node for node in context.nodes() if is_op(node, "Conv") and node.graph is context.graph
             and _live(context, node, node.inputs[0].shape) is not None]
    shapes = derived(context) if found else {}  # the sizes that a model declares may be false
    modified = False
    for node in found:
        live = _live(context, node, shapes.get(node.inputs[0].name))
        if live is not None:
            taps, pads = live
            weight = np.ascontiguousarray(context.array(node.inputs[1])[(..., *taps)])
            context.set_constant(node, 1, weight, f"{node.inputs[1].name}_live")
            for key, value in (("kernel_shape", weight.shape[2:]), ("pads", pads)):
                node.attributes[key] = ir.AttrInt64s(key, value)
            modified = True
    return modified


def _live(context: GraphContext, node: ir.Node, shape: ir.Shape | None) -> tuple[list[slice], list[int]] | None:
    """The other taps along each axis, and what is left of the padding, if the input has this shape; None if all taps stay."""
    weight = context.array(node.inputs[1])
    if weight is None or shape is None or weight.ndim < 3 or len(shape) != weight.ndim \
            or attribute(node, "auto_pad", "NOTSET") != "NOTSET" or not all(isinstance(size, int) for size in shape.dims[2:]):
        return None
    rank = weight.ndim - 2
    steps, strides = attribute(node, "dilations", [1] * rank), attribute(node, "strides", [1] * rank)
    pads = attribute(node, "pads", [0] * 2 * rank)
    kept, before, after = [], [], []
    for size, count, step, stride, begin, end in zip(shape.dims[2:], weight.shape[2:], steps, strides, pads, pads[rank:]):
        travel = (size + begin + end - (count - 1) * step - 1) // stride * stride  # from the first window to the last
        live = [i for i in range(count) if -travel <= i * step - begin < size]
        if travel < 0 or not live:
            return None
        kept.append(slice(live[0], live[-1] + 1))
        before.append(begin - live[0] * step)
        after.append(end - (count - 1 - live[-1]) * step)
    cut = any(part != slice(0, count) for part, count in zip(kept, weight.shape[2:]))
    if not cut or min(before + after) < 0 or not np.isfinite(weight).all():  # 0 times infinity is not 0
        return None
    return kept, before + after
