"""Activations that exporters spell out in several operators.

Exporters differ in where they put the constant factors and whether they multiply or divide; for the pattern that is all
the same. Paddle multiplies the argument of SiLU by 1.
"""
from __future__ import annotations

import math

import onnx_ir as ir

from .expression import Call, Expr, X
from .found import Build, Found
from .functions import outline


def _call(name: str, argument: Expr, *parameters: float) -> Expr:
    return Call(name, (argument,), parameters)


def _named(name: str, **attributes: float) -> Build:
    """Replaces what is found by a call of the function infold::name."""
    def build(found: Found) -> ir.Value | None:
        constants = [array for node in found.nodes for value in node.inputs
                     if value not in found.terms and (array := found.context.array(value)) is not None]
        if any(array.size != 1 or array.ndim > 1 for array in constants):
            return None  # one body serves tensors of any shape
        return outline(found, name, attributes)

    return build


_CLIPPED = _call("Clip", X + 3, 0, 6)
_TANH = math.sqrt(2 / math.pi)

PATTERNS: tuple[tuple[Expr, Build], ...] = (
    (X * _CLIPPED / 6, _named("HardSwish")),
    (X * _call("HardSigmoid", X, 1 / 6, 0.5), _named("HardSwish")),
    (_CLIPPED / 6, _named("HardSigmoid", alpha=1 / 6, beta=0.5)),
    (X * _call("Sigmoid", X), _named("Silu")),
    (X * _call("Tanh", _call("Softplus", X)), _named("Mish")),
    (X / 2 * (_call("Erf", X / math.sqrt(2)) + 1), _named("Gelu")),
    (X / 2 * (_call("Tanh", (X + X ** 3 * 0.044715) * _TANH) + 1), _named("GeluTanh")),
    (X / 2 * (_call("Tanh", X * (X ** 2 * 0.044715 + 1) * _TANH) + 1), _named("GeluTanh")),
)
