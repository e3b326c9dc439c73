"""A Pad with zeros goes into the padding of the convolutions and poolings that read it."""
from __future__ import annotations

import onnx_ir as ir

from .context import GraphContext, attribute, is_op


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
    if context.opset(node) < 11:
        pads = attribute(node, "pads") or attribute(node, "paddings")
        fill, axes = attribute(node, "value", 0.0), None
    else:
        pads, fill, axes = (context.array(value) if value is not None else None
                            for value in (*node.inputs[1:], None, None, None)[:3])
        if pads is None or (fill is None and len(node.inputs) > 2 and node.inputs[2] is not None):
            return None
        if axes is None and len(node.inputs) > 3 and node.inputs[3] is not None:
            return None
        pads, fill = pads.tolist(), 0.0 if fill is None else float(fill.item())
    if axes is not None:
        shape = node.inputs[0].shape
        if shape is None:
            return None
        rank, count = len(shape), len(axes)
        begins = {int(axis) % rank: pads[i] for i, axis in enumerate(axes)}
        ends = {int(axis) % rank: pads[count + i] for i, axis in enumerate(axes)}
        pads = [begins.get(axis, 0) for axis in range(rank)] + [ends.get(axis, 0) for axis in range(rank)]
    rank = len(pads) // 2
    spatial = [*pads[2:rank], *pads[rank + 2:]]
    if fill != 0 or rank < 3 or min(spatial) < 0 or any(pads[:2]) or any(pads[rank:rank + 2]):
        return None
    return list(spatial)


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
