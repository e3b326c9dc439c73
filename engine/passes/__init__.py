"""Rewriting of models: BatchNormalization folding, constant folding and clean-up, ONNX to ONNX."""
from __future__ import annotations

from itertools import cycle

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveInitializersFromInputsPass

from ..errors import InvalidModelError
from ..report.fold import FoldReport
from . import (
    backward,
    branches,
    chains,
    cleanup,
    constants,
    dead,
    forward,
    halves,
    identity,
    pad,
    recognise,
    sequences,
    shapes,
    taps,
    through,
    transposes,
)
from .context import GraphContext, Pass, is_op, node_name

_FOLD_SIZE_LIMIT = 64 << 20  # of a file that somebody stores
_PREPARE_SIZE_LIMIT = 2 << 30  # of a model in memory, where broadcast constants are views


def fold(model: ir.Model) -> tuple[ir.Model, FoldReport]:
    """Fold every BatchNormalization that exact algebra can fold, and all that is constant.

    Args:
        model: any legal model, float16 to float64; it is not modified (weights are shared, never written to).

    Returns:
        A legal ONNX model for any runtime that computes the same, with the same graph inputs, outputs and operator
        sets (initializers of models older than IR version 4 leave the input list), and the verdict on every
        BatchNormalization. Tensors that keep their name keep their meaning.
    """
    context = GraphContext(_normalised(model), _FOLD_SIZE_LIMIT)
    _rewrite(context, _SIMPLIFY + _FOLD)
    return context.model, context.report()


def prepare(model: ir.Model, own: bool = False) -> tuple[ir.Model, FoldReport]:
    """`fold` for infold's own session: half precision becomes float32 between inputs and outputs, and activations and
    normalisations spelled out in several nodes one each.

    own: the model is nobody else's and may be rewritten, so that each weight is released as soon as it is folded.
    """
    model = _normalised(model, own)
    halves.widen(model)
    context = GraphContext(model, _PREPARE_SIZE_LIMIT, quantized=False)
    _rewrite(context, (*_SIMPLIFY, recognise.apply, *_FOLD, transposes.apply))
    return context.model, context.report()


def simplified(model: ir.Model) -> GraphContext:
    """A copy of the model with its constants folded and every BatchNormalization in place, for reports to read."""
    context = GraphContext(_normalised(model), _FOLD_SIZE_LIMIT)
    _rewrite(context, _SIMPLIFY)
    return context


_SIMPLIFY: tuple[Pass, ...] = (constants.apply, identity.apply, sequences.apply)
_FOLD: tuple[Pass, ...] = (pad.apply, taps.apply, backward.apply, through.apply, branches.apply, chains.apply, forward.apply,
                           dead.apply, cleanup.apply)


def _normalised(model: ir.Model, own: bool = False) -> ir.Model:
    """A copy (unless `own`) as the passes expect it: functions inlined, only overridable initializers among the graph inputs."""
    model = model if own else model.clone()
    if model.functions:
        InlinePass(lambda function: _can_inline(model, function))(model)
    if model.ir_version < 4:  # there every initializer is listed as an input, and constant nevertheless
        RemoveInitializersFromInputsPass()(model)
        model.ir_version = 4
    return model


def _can_inline(model: ir.Model, function: ir.Function) -> bool:
    versions = model.opset_imports
    return all(versions.get(domain, version) == version for domain, version in function.opset_imports.items())


def _rewrite(context: GraphContext, rules: tuple[Pass, ...]) -> None:
    """Apply the rules until none changes anything, and again where new constants may make more shapes known."""
    try:
        constants.lift(context)
        if shapes.believable(context):  # then often nothing is left to infer
            constants.apply(context)
        cleanup.apply(context)
        size = None
        while size != (size := sum(1 for _ in context.nodes())):
            shapes.apply(context)
            quiet = 0  # rules in a row that found nothing
            for rule in cycle(rules):
                quiet = 0 if rule(context) else quiet + 1
                if quiet == len(rules):
                    break
            if not any(is_op(node, "Shape", "Size") for node in context.nodes()):
                break
        cleanup.finish(context)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # numbers that contradict one another
        at = "the model" if context.visited is None else f"node {node_name(context.visited)!r} ({context.visited.op_type})"
        raise InvalidModelError(f"{at} contradicts itself: {error}") from error
