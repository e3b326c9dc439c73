"""Comparisons, logic, bits and choices: typed loops with broadcasting."""
from __future__ import annotations

import numpy as np

from ..plan.tensor import ANY, INTEGERS, NUMBERS, TYPES
from .base import attr, op
from .elementwise import broadcast_infer, operand
from .typed import mapped

SWAPPED = {"Greater": "LESS", "GreaterOrEqual": "LESS_EQUAL"}
COMPARISONS = {"Equal": "EQUAL", "Less": "LESS", "LessOrEqual": "LESS_EQUAL", **SWAPPED}
LOGIC = {"And": "AND", "Or": "OR", "Xor": "XOR"}
BITS = {"BitwiseAnd": "AND", "BitwiseOr": "OR", "BitwiseXor": "XOR"}


def _compared(node, inputs):
    shapes = broadcast_infer(node, inputs)
    return None if shapes is None else [(shapes[0], np.dtype(np.bool_))]


@op(*LOGIC, infer=_compared, types=("b8",))
@op(*COMPARISONS, infer=_compared, types=(*NUMBERS, "b8"))  # the result is b8
def compare(ctx, node) -> None:
    a, b = operand(ctx, node, 0), operand(ctx, node, 1)
    if node.op_type in SWAPPED:
        a, b = b, a
    mapped(ctx, f"{COMPARISONS.get(node.op_type) or LOGIC[node.op_type]}_{TYPES[a.dtype]}", [a, b], node.outputs[0].name)


@op(*BITS, types=INTEGERS)
def bits(ctx, node) -> None:
    operands = [ctx.tensor(v.name) for v in node.inputs]
    mapped(ctx, f"{BITS[node.op_type]}_{operands[0].dtype.itemsize}", operands, node.outputs[0].name)


@op("BitShift", types=INTEGERS)
def bit_shift(ctx, node) -> None:
    operands = [ctx.tensor(v.name) for v in node.inputs]
    mapped(ctx, f"SHIFT_{attr(node, 'direction')}_{TYPES[operands[0].dtype]}", operands, node.outputs[0].name)


@op("Not", types=("b8",))
@op("BitwiseNot", types=INTEGERS)
def not_(ctx, node) -> None:
    x = ctx.tensor(node.inputs[0].name)
    mapped(ctx, "NOT_b8" if node.op_type == "Not" else f"NOT_{x.dtype.itemsize}", [x], node.outputs[0].name)


@op("IsNaN", types=("f32", "f64", "b8"))
def is_nan(ctx, node) -> None:
    x = ctx.tensor(node.inputs[0].name)
    mapped(ctx, f"ISNAN_{TYPES[x.dtype]}", [x], node.outputs[0].name)


@op("IsInf", types=("f32", "f64", "b8"))
def is_inf(ctx, node) -> None:
    x = ctx.tensor(node.inputs[0].name)
    signs = attr(node, "detect_negative", 1), attr(node, "detect_positive", 1)
    if not any(signs):
        ctx.fill(ctx.output(node.outputs[0].name, image=False), False)
        return
    sign = "" if all(signs) else "_NEGATIVE" if signs[0] else "_POSITIVE"
    mapped(ctx, f"ISINF{sign}_{TYPES[x.dtype]}", [x], node.outputs[0].name)


@op("Where", types=ANY)
def where(ctx, node) -> None:
    operands = [ctx.tensor(v.name) for v in node.inputs]
    mapped(ctx, f"WHERE_{operands[1].dtype.itemsize}", operands, node.outputs[0].name)
