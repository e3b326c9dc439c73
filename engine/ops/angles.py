"""Trigonometric and hyperbolic functions and their inverses, as positional encodings use them: typed loops."""
from __future__ import annotations

from ..plan.tensor import TYPES
from .base import op
from .typed import mapped


@op("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", types=("f32", "f64"))
def angle(ctx, node) -> None:
    x = ctx.tensor(node.inputs[0].name)
    mapped(ctx, f"{node.op_type.upper()}_{TYPES[x.dtype]}", [x], node.outputs[0].name)
