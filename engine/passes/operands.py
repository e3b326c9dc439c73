"""What a node says in attributes in old operator sets, in constant inputs in new ones."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .context import GraphContext, attribute


def integers(context: GraphContext, node: ir.Node, index: int, name: str) -> list[int] | None:
    """The attribute `name`, or input `index`; None where there is neither, or the input is computed in the run."""
    if name in node.attributes:
        return list(attribute(node, name))
    array = context.array(node.inputs[index]) if len(node.inputs) > index else None
    return None if array is None else array.reshape(-1).tolist()


def bounds(context: GraphContext, clip: ir.Node) -> tuple[float, float] | None:
    """Least and largest result of a Clip, infinite where it has none; None if they are computed in the run."""
    if context.opset(clip) < 11:
        return attribute(clip, "min", -np.inf), attribute(clip, "max", np.inf)
    given = (*clip.inputs[1:3], None, None)[:2]
    if any(value is not None and context.array(value) is None for value in given):
        return None
    low, high = (end if value is None else float(context.array(value).item()) for value, end in zip(given, (-np.inf, np.inf)))
    return low, high


def padding(context: GraphContext, pad: ir.Node) -> tuple[np.ndarray, float | None] | None:
    """What a Pad adds: int64 [2, rank], before and behind each axis; and the number that it fills with (None: computed in the run).
    None if the amounts are."""
    if context.opset(pad) < 11:
        return np.reshape(attribute(pad, "pads") or attribute(pad, "paddings"), (2, -1)), attribute(pad, "value", 0.0)
    amounts, fill, axes = (*pad.inputs[1:], None, None, None)[:3]
    pads, places = context.array(amounts), context.array(axes)
    number = 0.0 if fill is None else None if context.array(fill) is None else float(context.array(fill).item())
    if pads is None or (axes is not None and (places is None or pad.inputs[0].shape is None)):
        return None
    pads = pads.reshape(2, -1)
    if axes is not None:
        pads, given = np.zeros((2, len(pad.inputs[0].shape)), np.int64), pads
        pads[:, places] = given
    return pads, number


def adds_border(node: ir.Node) -> bool:
    """Whether a convolution or pooling may add zeros around its input."""
    return any(attribute(node, "pads", ())) or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
