"""SplitToSequence read at constant places is a Split (torch exports `chunk` and `split` that way)."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .context import GraphContext, attribute, is_op


def apply(context: GraphContext) -> bool:
    """Replace SplitToSequence whose every reader is a SequenceAt with a constant position."""
    modified = False
    for node in context.nodes():
        if not is_op(node, "SplitToSequence") or node.outputs[0].is_graph_output():
            continue
        sizes, readers = _sizes(context, node), list(node.outputs[0].consumers())
        places = [_place(context, reader, node) for reader in readers]
        if sizes is None or not all(place is not None and -len(sizes) <= place < len(sizes) for place in places):
            continue
        _split(context, node, sizes, [(reader, place % len(sizes)) for reader, place in zip(readers, places)])
        modified = True
    return modified


def _sizes(context: GraphContext, node: ir.Node) -> list[int] | None:
    """The parts' sizes: given one by one, or one size for all with a smaller rest."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    split = context.array(given)
    if split is None and (given is not None or not attribute(node, "keepdims", 1)):
        return None
    if split is not None and split.ndim == 1:
        return split.tolist()
    shape, axis = node.inputs[0].shape, attribute(node, "axis", 0)
    if shape is None or not isinstance(shape[axis], int):
        return None
    size, total = 1 if split is None else int(split), shape[axis]
    return [min(size, total - start) for start in range(0, total, size)] if size > 0 else None


def _place(context: GraphContext, reader: ir.Node, split: ir.Node) -> int | None:
    if not is_op(reader, "SequenceAt") or reader.graph is not split.graph:
        return None
    place = context.array(reader.inputs[1])
    return None if place is None else int(place.item())


def _split(context: GraphContext, node: ir.Node, sizes: list[int], readers: list[tuple[ir.Node, int]]) -> None:
    inputs, attributes = [node.inputs[0]], {"axis": attribute(node, "axis", 0)}
    if context.opset(node) >= 13:
        inputs.append(context.constant(np.array(sizes, np.int64), f"{node.outputs[0].name}_sizes"))
    else:
        attributes["split"] = sizes
    split = ir.node("Split", inputs, attributes, num_outputs=len(sizes), name=node.name)
    for output in split.outputs:
        output.name = context.unique_name(f"{node.outputs[0].name}_part")
    node.append(split)
    taken = set()
    for reader, place in readers:
        result, part = reader.outputs[0], split.outputs[place]
        if place not in taken:
            context.supersede(result, part)
            taken.add(place)
        elif result.is_graph_output():
            reader.append(identity := ir.node("Identity", [part]))
            context.supersede(result, identity.outputs[0])
        else:
            result.replace_all_uses_with(part)
        context.remove(reader)
    context.remove(node)
