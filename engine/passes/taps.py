"""Taps that meet nothing but padding go: DeepLab's convolutions dilated by 24 and 36 are 1x1 on images of 14 x 14 pixels."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .context import GraphContext, attribute, is_op


def apply(context: GraphContext) -> bool:
    """Drop the outer taps of each convolution that lie outside its image wherever the window is."""
    modified = False
    for node in context.nodes():
        if is_op(node, "Conv") and attribute(node, "auto_pad", "NOTSET") == "NOTSET":
            modified |= _crop(context, node)
    return modified


def _crop(context: GraphContext, node: ir.Node) -> bool:
    weight, shape = context.array(node.inputs[1]), node.inputs[0].shape
    if weight is None or shape is None or weight.ndim < 3 or len(shape) != weight.ndim \
            or not all(isinstance(size, int) for size in shape.dims[2:]):
        return False
    rank = weight.ndim - 2
    steps, strides = attribute(node, "dilations", [1] * rank), attribute(node, "strides", [1] * rank)
    pads = attribute(node, "pads", [0] * 2 * rank)
    kept, before, after = [], [], []
    for size, count, step, stride, begin, end in zip(shape.dims[2:], weight.shape[2:], steps, strides, pads, pads[rank:]):
        travel = (size + begin + end - (count - 1) * step - 1) // stride * stride  # from the first window to the last
        live = [i for i in range(count) if -travel <= i * step - begin < size]
        if travel < 0 or not live:
            return False
        kept.append(slice(live[0], live[-1] + 1))
        before.append(begin - live[0] * step)
        after.append(end - (count - 1 - live[-1]) * step)
    part = weight[(..., *kept)]
    if part.shape == weight.shape or min(before + after) < 0 or not np.isfinite(weight).all():  # 0 times infinity is not 0
        return False
    context.set_constant(node, 1, np.ascontiguousarray(part), f"{node.inputs[1].name}_live")
    for key, value in (("kernel_shape", part.shape[2:]), ("pads", before + after)):
        node.attributes[key] = ir.AttrInt64s(key, value)
    return True
