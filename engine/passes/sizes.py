"""Shapes that a graph computes for Reshape and Expand, as far as they are known before a run."""
from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from .context import GraphContext, attribute, is_op
from .dims import Size, shape_of

_SAME = ("Unsqueeze", "Squeeze", "Reshape", "Cast", "Identity")  # of a list of numbers, or of one


def computed_sizes(context: GraphContext, value: ir.Value, known: Mapping[ir.Value, list[Size]]) -> list[Size] | None:
    """The integers in a value, open dimensions by their names.

    Args:
        known: shapes of values that are better known than from the graph.
    """
    array, node = context.array(value), value.producer()
    if array is not None:
        return array.reshape(-1).tolist()
    inputs = [] if node is None else node.inputs
    if is_op(node, "Shape"):
        shape = known.get(inputs[0]) or shape_of(inputs[0])
        return shape[attribute(node, "start", 0):attribute(node, "end", len(shape))]
    if is_op(node, *_SAME):
        return computed_sizes(context, inputs[0], known)
    if is_op(node, "Concat"):
        parts = [computed_sizes(context, part, known) for part in inputs]
        return None if any(part is None for part in parts) else [size for part in parts for size in part]
    if is_op(node, "Gather", "Slice"):
        source, places = computed_sizes(context, inputs[0], known), [context.array(place) for place in inputs[1:]]
        if source is None or not places or any(place is None for place in places):
            return None
        if node.op_type == "Gather":
            return [source[place] for place in places[0].reshape(-1)]
        start, end, step = places[0].item(), places[1].item(), places[3].item() if len(places) > 3 else 1
        return source[start:end:step]
    if is_op(node, "Where") and is_op(inputs[0].producer(), "Equal"):  # TorchScript: where(size == -1, 1, size)
        return computed_sizes(context, inputs[2], known)
    return None
