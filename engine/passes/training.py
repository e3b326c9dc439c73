"""BatchNormalizations exported in training mode: refused, turned to their running statistics, or left as they are.

Those of constants are left alone: their result is a constant, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ..errors import UnsupportedError
from .context import all_nodes, attribute, is_op, node_name

MODES = ("error", "running", "batch")


def is_training(node: ir.Node, opset: int) -> bool:
    """Whether a BatchNormalization takes its statistics from the batch.

    Since operator set 14 `training_mode` says so; from 7 to 13 naming an optional output does; before, `is_test=0`.
    """
    if opset >= 14:
        return attribute(node, "training_mode", 0) != 0
    if opset >= 7:
        return any(output.name for output in node.outputs[1:])
    return attribute(node, "is_test", 0) == 0


def resolve(model: ir.Model, mode: str) -> ir.Model:
    """What is to be run of a model that may have been exported in training mode.

    Args:
        model: never modified.
        mode: "error" refuses; "running" normalises with the running statistics, as after `model.eval()`, and what the
            node would have made of these becomes the statistics themselves; "batch" leaves the model as it is.

    Returns:
        The model itself if there is nothing to change, else a copy.

    Raises:
        UnsupportedError: "error", and a BatchNormalization is in training mode; or no such mode.
    """
    if mode not in MODES:
        raise UnsupportedError(f"training_mode {mode!r}: one of {', '.join(MODES)} expected")
    found = [] if mode == "batch" else list(_in_training(model))
    if not found:
        return model
    if mode == "error":
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UnsupportedError(
            f"BatchNormalization {node_name(found[0][0])!r}{more} is in training mode: it normalises with the mean and"
            " variance of whatever batch it is given, so a result depends on its neighbours and a batch of one loses"
            " its meaning. Export the model after model.eval(), or choose training mode 'running' (the running"
            " statistics in the file) or 'batch' (compute what the file says)"
        )
    copy = model.clone()
    for node, opset in _in_training(copy):
        _use_running_statistics(node, opset)
    return copy


def _in_training(model: ir.Model) -> Iterator[tuple[ir.Node, int]]:
    for body in (model.graph, *model.functions.values()):
        for node in all_nodes(body):
            if is_op(node, "BatchNormalization") and is_training(node, opset := node.version or body.opset_imports.get("", 1)) \
                    and not _is_constant(node.inputs[0]):
                yield node, opset


def _is_constant(value: ir.Value | None) -> bool:
    """Whether no input has a part in a value: the batch of a standardised weight (Brock et al., 2021) is the weight itself."""
    ahead, seen = [value], set()
    while ahead:
        value = ahead.pop()
        if value is None or value in seen or (value.is_initializer() and not value.is_graph_input()):
            continue
        if value.producer() is None:
            return False
        seen.add(value)
        ahead += value.producer().inputs
    return True


def _use_running_statistics(node: ir.Node, opset: int) -> None:
    if opset >= 14:
        node.attributes["training_mode"] = ir.AttrInt64("training_mode", 0)
    elif opset < 7:
        node.attributes["is_test"] = ir.AttrInt64("is_test", 1)
    mean, variance = node.inputs[3:5]
    for output, statistic in zip(node.outputs[1:], (mean, variance, mean, variance)):
        if output.uses() or output.is_graph_output():
            identity = ir.Node("", "Identity", [statistic])
            node.graph.insert_after(node, identity)
            result = identity.outputs[0]
            result.type, result.shape = output.type, output.shape
            output.replace_all_uses_with(result, replace_graph_outputs=True)
            result.name, output.name = output.name, None
    node.resize_outputs(1)
