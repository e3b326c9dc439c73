"""Activations that exporters spell out in several operators, recognised and named.

    HardSwish    x * clip(x + 3, 0, 6) / 6   or   x * HardSigmoid(x; 1/6, 1/2)
    HardSigmoid  clip(x + 3, 0, 6) / 6
    Silu         x * sigmoid(x), where Paddle multiplies the argument by 1
    Mish         x * tanh(softplus(x))
    Gelu         x / 2 * (1 + erf(x / sqrt 2))
    GeluTanh     x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))

Exporters differ in where they put the constant factors and whether they multiply or divide, so a pattern is matched
against the flattened product: one scalar and a list of factors.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .context import GraphContext, attribute, is_op
from .functions import outline

_TOLERANCE = 1e-3  # of a constant: float16 models round theirs to 11 bits


def apply(context: GraphContext) -> bool:
    """Replace every spelled-out activation by a call of its function in the domain infold; outermost pattern first."""
    modified = False
    nodes = context.nodes()
    place = {node: index for index, node in enumerate(nodes)}
    for node in reversed(nodes):
        if node.graph is None or not is_op(node, "Mul", "Div"):
            continue
        matcher = _Matcher(context, node)
        found = matcher.match()
        if found is not None:
            interior = sorted({node, *matcher.inside(found.x, node)}, key=place.__getitem__)
            modified |= outline(context, found.name, found.x, interior, found.attributes)
    return modified


@dataclass(frozen=True)
class _Found:
    name: str
    x: ir.Value
    attributes: dict[str, float]


@dataclass(frozen=True)
class _Product:
    scale: float
    factors: tuple[ir.Value, ...]


class _Matcher:
    """Matches the patterns that end in one node."""

    def __init__(self, context: GraphContext, root: ir.Node) -> None:
        self.context = context
        self.root = root

    def match(self) -> _Found | None:
        product = self._product(self.root.outputs[0])
        if len(product.factors) == 1:
            x = self._clipped(product.factors[0]) if _close(product.scale, 1 / 6) else None
            return None if x is None else _Found("HardSigmoid", x, {"alpha": 1 / 6, "beta": 0.5})
        if len(product.factors) != 2:
            return None
        for x, gate in (product.factors, product.factors[::-1]):
            name = self._gate(product.scale, x, gate)
            if name is not None:
                return _Found(name, x, {})
        return None

    def inside(self, x: ir.Value, node: ir.Node) -> Iterator[ir.Node]:
        """The nodes of a match: all between `x` and `node`, without constants."""
        for value in node.inputs:
            producer = value.producer() if value is not None and value is not x else None
            if producer is not None and self.context.tensor(value) is None:
                yield producer
                yield from self.inside(x, producer)

    def _gate(self, scale: float, x: ir.Value, gate: ir.Value) -> str | None:
        """Which activation `scale * x * gate` is."""
        if _close(scale, 1):
            if self._is_scaled(self._operand(gate, "Sigmoid"), 1.0, x):
                return "Silu"
            if self._operand(self._operand(gate, "Tanh"), "Softplus") is x:
                return "Mish"
            if self._operand(gate, "HardSigmoid") is x:
                node = gate.producer()
                slope, offset = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
                return "HardSwish" if _close(slope, 1 / 6) and _close(offset, 0.5) else None
        if _close(scale, 1 / 6) and self._clipped(gate) is x:
            return "HardSwish"
        if _close(scale, 0.5):
            inner = self._plus(gate, 1.0)
            if self._is_scaled(self._operand(inner, "Erf"), math.sqrt(0.5), x):
                return "Gelu"
            if self._is_tanh_argument(self._operand(inner, "Tanh"), x):
                return "GeluTanh"
        return None

    def _is_tanh_argument(self, value: ir.Value | None, x: ir.Value) -> bool:
        """sqrt(2/pi) * (x + 0.044715 x^3), or with x factored out."""
        if value is None:
            return False
        product = self._product(value)
        if not _close(product.scale, math.sqrt(2 / math.pi)):
            return False
        factors = list(product.factors)
        if len(factors) == 2 and x in factors:
            factors.remove(x)
            return self._is_power(self._plus(factors[0], 1.0), x, 2)
        if len(factors) != 1 or not is_op(factors[0].producer(), "Add") or not self._is_private(factors[0]):
            return False
        first, second = factors[0].producer().inputs
        return (first is x and self._is_power(second, x, 3)) or (second is x and self._is_power(first, x, 3))

    def _is_power(self, value: ir.Value | None, x: ir.Value, exponent: int) -> bool:
        """0.044715 * x^exponent, as products or as Pow."""
        if value is None:
            return False
        product = self._product(value)
        if not _close(product.scale, 0.044715):
            return False
        if all(factor is x for factor in product.factors):
            return len(product.factors) == exponent
        return len(product.factors) == 1 and self._operand(product.factors[0], "Pow") is x \
            and self._scalar(product.factors[0].producer().inputs[1]) == exponent

    def _is_scaled(self, value: ir.Value | None, scale: float, x: ir.Value) -> bool:
        if value is None:
            return False
        product = self._product(value)
        return _close(product.scale, scale) and len(product.factors) == 1 and product.factors[0] is x

    def _clipped(self, value: ir.Value) -> ir.Value | None:
        """x of clip(x + 3, 0, 6)."""
        inner = self._operand(value, "Clip")
        if inner is None:
            return None
        node = value.producer()
        bounds = [self._scalar(bound) for bound in node.inputs[1:3]] if self.context.opset(node) >= 11 \
            else [attribute(node, "min"), attribute(node, "max")]
        return self._plus(inner, 3.0) if bounds == [0, 6] else None

    def _product(self, value: ir.Value) -> _Product:
        """Flatten Mul, and Div by a constant, as far as nothing else reads the intermediate values."""
        node = value.producer()
        if is_op(node, "Mul", "Div") and (node is self.root or self._is_private(value)):
            first, second = node.inputs
            constant = self._scalar(second)
            if constant:
                inner, factor = self._product(first), constant if node.op_type == "Mul" else 1 / constant
                return _Product(inner.scale * factor, inner.factors)
            if node.op_type == "Mul":
                constant = self._scalar(first)
                if constant:
                    inner = self._product(second)
                    return _Product(inner.scale * constant, inner.factors)
                left, right = self._product(first), self._product(second)
                return _Product(left.scale * right.scale, left.factors + right.factors)
        return _Product(1.0, (value,))

    def _plus(self, value: ir.Value | None, constant: float) -> ir.Value | None:
        """The other operand of an addition of `constant`."""
        if value is None or not is_op(value.producer(), "Add") or not self._is_private(value):
            return None
        first, second = value.producer().inputs
        for operand, other in ((first, second), (second, first)):
            scalar = self._scalar(other)
            if scalar is not None and _close(scalar, constant):
                return operand
        return None

    def _operand(self, value: ir.Value | None, op_type: str) -> ir.Value | None:
        """The first input of the node behind the value, if it is of this type and nothing else reads the value."""
        if value is None or not is_op(value.producer(), op_type) or not self._is_private(value):
            return None
        return value.producer().inputs[0]

    def _is_private(self, value: ir.Value) -> bool:
        return self.context.sole_user(value) is not None and value.producer().graph is self.root.graph

    def _scalar(self, value: ir.Value | None) -> float | None:
        """The value as a number, if it is a constant that leaves the rank of what it is combined with."""
        array = self.context.array(value)
        if array is None or array.size != 1 or array.ndim > 1:
            return None
        return float(array.astype(np.float64).item())


def _close(number: float, target: float) -> bool:
    return math.isclose(number, target, rel_tol=_TOLERANCE)
