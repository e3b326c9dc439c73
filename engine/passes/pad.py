"""A Pad with zeros goes into the padding of the convolutions and poolings that read it."""
from __future__ import annotations

import onnx_ir as ir

from .context import GraphContext, attribute, is_op
from .operands import padding


def apply(context: GraphContext) -> bool:
    """Let Conv, and AveragePool that counts its padding, read what Pad reads; Pad goes when nothing reads it."""
    modified = False
    for node in context.nodes():
        pads = _zero_pads(context, node)
        if pads is None:
            continue
        result = node.outputs[0]
        for reader in result.consumers():
            merged = _merged(context, reader, result, pads)
            if merged is None:
                continue
            reader.attributes["pads"] = ir.AttrInt64s("pads", merged)
            reader.attributes.pop("auto_pad", None)
            if is_op(reader, "AveragePool"):
                reader.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
            reader.replace_input_with(0, node.inputs[0])
            modified = True
        if not result.uses() and not result.is_graph_output():
            context.remove(node)
    return modified


def _zero_pads(context: GraphContext, node: ir.Node) -> list[int] | None:
    """Begins then ends along the spatial axes, if the node pads these and no others with zeros."""
    if not is_op(node, "Pad") or attribute(node, "mode", "constant") != "constant":
        return None
    found = padding(context, node)
    if found is None:
        return None
    pads, fill = found
    if fill != 0 or pads.shape[1] < 3 or pads[:, 2:].min() < 0 or pads[:, :2].any():
        return None
    return pads[:, 2:].ravel().tolist()


def _merged(context: GraphContext, reader: ir.Node, value: ir.Value, pads: list[int]) -> list[int] | None:
    """The reader's padding with `pads` added, if that computes the same."""
    if not is_op(reader, "Conv", "AveragePool") or reader.inputs[0] is not value or value in reader.inputs[1:]:
        return None
    if attribute(reader, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    own = list(attribute(reader, "pads", [0] * len(pads)))
    merged = [a + b for a, b in zip(own, pads)]
    if is_op(reader, "Conv"):
        return merged if min(own) >= 0 else None
    kernel = list(attribute(reader, "kernel_shape"))
    counts = not any(own) or attribute(reader, "count_include_pad", 0)
    fits = all(pad < size for pad, size in zip(merged, kernel * 2))  # runtimes require it of pooling
    return merged if counts and fits and context.opset(reader) >= 7 and not attribute(reader, "ceil_mode", 0) else None
