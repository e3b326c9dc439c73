"""What a stretch of the graph computes of one tensor, as a formula (`expression.Expr`) for every value in it.

Formulas say nothing of shapes. Instead every dimension of a value names the part of the tensor's axes that it runs over
(`Atom`), none where its size is 1: reductions remove parts, Reshape cuts and joins them, Transpose moves them. So a
value aligns with another one if the names agree, wherever an exporter put its Unsqueeze, Reshape or Expand.
"""
from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from .context import GraphContext, attribute, is_op
from .dims import Dim, Size, broadcast, regroup, shape_of, size_of
from .expression import Array, Atom, Call, Expr, X, lift, mean, number_of
from .operands import bounds, integers
from .shapes import dtype
from .sizes import computed_sizes
from .training import is_training

_LEAST_OPSET = 7  # the first with NumPy's broadcasting
_LIMIT = 100  # nodes that are read from one tensor
_LARGEST = 1 << 20  # elements of a constant that is looked at
_CALLS = ("Sigmoid", "Tanh", "Erf", "Softplus")
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class Term(NamedTuple):
    """A value: its formula, and what each of its dimensions runs over."""

    expr: Expr
    dims: tuple[Dim, ...]


def read(context: GraphContext, x: ir.Value, place: dict[ir.Node, int]) -> dict[ir.Value, Term]:
    """`x` and the values that are computed from it and constants alone, by operators with a formula, in graph order; nothing where
    there are none of these.

    Args:
        place: the position of the nodes that may be read.
    """
    if x.shape is None or not any(user in place and user.op_type in _OPERATORS for user in x.consumers()):
        return {}
    dims = tuple(() if size == 1 else ((axis, 1, f"?{axis}" if size is None else size),)
                 for axis, size in enumerate(shape_of(x)))
    reader = _Reader(context, {x: Term(X, dims)}, [atom for dim in dims for atom in dim])
    waiting: list[tuple[int, int]] = []
    nodes: dict[int, ir.Node] = {}

    def follow(value: ir.Value) -> None:
        for user in value.consumers():
            if user in place and place[user] not in nodes and is_op(user, *_OPERATORS) and context.opset(user) >= _LEAST_OPSET:
                nodes[place[user]] = user
                heappush(waiting, place[user])

    follow(x)
    while waiting and len(reader.terms) < _LIMIT:
        node = nodes[heappop(waiting)]
        try:
            term = _OPERATORS[node.op_type](reader, node)
        except (ArithmeticError, LookupError, TypeError, ValueError):  # contradictions, which planning explains
            term = None
        if term is not None:
            reader.terms[node.outputs[0]] = term
            follow(node.outputs[0])
    return reader.terms


class _Reader:
    def __init__(self, context: GraphContext, terms: dict[ir.Value, Term], atoms: list[Atom]) -> None:
        self.context, self.terms, self.atoms = context, terms, atoms

    def input(self, node: ir.Node, index: int = 0) -> Term | None:
        return self.terms.get(node.inputs[index])

    def sizes(self, value: ir.Value) -> list[Size] | None:
        """A shape that the graph computes."""
        return computed_sizes(self.context, value, {read: [size_of(dim) for dim in term.dims]
                                                    for read, term in self.terms.items()})

    def aligned(self, value: ir.Value, other: tuple[Dim, ...]) -> Term | None:
        """A constant operand, its dimensions named after what they meet; also one expanded to the shape of the tensor."""
        array = self.context.array(value)
        if array is None and is_op(value.producer(), "Expand"):
            source, shape = value.producer().inputs
            dims = regroup(self.atoms, self.sizes(shape) or [])
            term = None if dims is None or self.context.array(source) is None else self.aligned(source, dims)
            return None if term is None else Term(term.expr, dims)
        if array is None or array.dtype.kind != "f":
            return None
        shape, array, dims = array.shape, _first_where_repeated(array), []
        rank = max(array.ndim, len(other))
        for axis, size in enumerate(shape, start=rank - array.ndim):
            met = other[axis - rank + len(other)] if axis >= rank - len(other) else ()
            if size != 1 and not met:  # as a value of this rank has it; one that differs would not align
                met = next((term.dims[axis] for term in self.terms.values()
                            if len(term.dims) == rank and size_of(term.dims[axis]) == size), ())
            if size != 1 and size_of(met) != size:
                return None
            dims.append(met if size != 1 else ())
        if array.size > _LARGEST:
            return None
        return Term(_constant(array, dims), tuple(dims))

    def operands(self, node: ir.Node) -> tuple[Term, Term] | None:
        if len(node.inputs) != 2:
            return None
        first, second = map(self.terms.get, node.inputs)
        if first is None and second is not None:
            first = self.aligned(node.inputs[0], second.dims)
        elif second is None and first is not None:
            second = self.aligned(node.inputs[1], first.dims)
        return None if first is None or second is None else (first, second)


def _first_where_repeated(array: np.ndarray) -> np.ndarray:
    """Size 1 along the axes on which the array is broadcast from a smaller one."""
    return array[tuple(slice(0, 1) if step == 0 else slice(None) for step in array.strides)]


def _constant(array: np.ndarray, dims: list[Dim]) -> Expr:
    for axis in range(array.ndim):
        first = array[(slice(None),) * axis + (slice(0, 1),)]
        if array.shape[axis] > 1 and (array == first).all():
            array = first
    if array.size == 1:
        return lift(float(array.item()))
    atoms = [atom for size, dim in zip(array.shape, dims) if size != 1 for atom in dim]
    return Array(array.reshape([extent for *_, extent in atoms]), tuple(atoms))


# Operators

_Rule = Callable[[_Reader, ir.Node], Term | None]
_OPERATORS: dict[str, _Rule] = {}


def _operator(*names: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _OPERATORS.update(dict.fromkeys(names, rule))
        return rule
    return register


@_operator("Add", "Sub", "Mul", "Div", "Max")
def _binary(reader: _Reader, node: ir.Node) -> Term | None:
    operands = reader.operands(node)
    dims = broadcast(*(term.dims for term in operands)) if operands else None
    if dims is None:
        return None
    a, b = (term.expr for term in operands)
    match node.op_type:
        case "Add":
            return Term(a + b, dims)
        case "Sub":
            return Term(a - b, dims)
        case "Mul":
            return Term(a * b, dims)
        case "Div":
            return None if number_of(b) == 0 else Term(a / b, dims)
        case _:
            return Term(Call("Max", (a, b)), dims)


@_operator(*_CALLS, "HardSigmoid")
def _call(reader: _Reader, node: ir.Node) -> Term | None:
    term = reader.input(node)
    parameters = (attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)) if node.op_type == "HardSigmoid" else ()
    return None if term is None else Term(Call(node.op_type, (term.expr,), parameters), term.dims)


@_operator("Sqrt", "Reciprocal", "Pow", "Neg", "Relu")
def _power(reader: _Reader, node: ir.Node) -> Term | None:
    term = reader.input(node)
    if term is None:
        return None
    match node.op_type:
        case "Neg":
            return Term(-term.expr, term.dims)
        case "Relu":
            return Term(Call("Max", (term.expr, lift(0.0))), term.dims)
        case "Pow":
            array = reader.context.array(node.inputs[1])
            if array is None or array.size != 1 or array.ndim > len(term.dims):
                return None
            return Term(term.expr ** float(array.item()), term.dims)
        case kind:
            return Term(term.expr ** (0.5 if kind == "Sqrt" else -1.0), term.dims)


@_operator("Clip")
def _clip(reader: _Reader, node: ir.Node) -> Term | None:
    term = reader.input(node)
    if term is None:
        return None
    low, high = bounds(reader.context, node) or (-np.inf, np.inf)
    if low == -np.inf:
        return None
    if high == np.inf:
        return Term(Call("Max", (term.expr, lift(low))), term.dims)
    return Term(Call("Clip", (term.expr,), (low, high)), term.dims)


@_operator("Cast")
def _cast(reader: _Reader, node: ir.Node) -> Term | None:
    return reader.input(node) if dtype(node.inputs[0]) in _FLOATS and attribute(node, "to") in _FLOATS else None


@_operator("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "GlobalAveragePool")
def _reduce(reader: _Reader, node: ir.Node) -> Term | None:
    term = reader.input(node)
    if term is None:
        return None
    rank = len(term.dims)
    if node.op_type == "GlobalAveragePool":
        axes, keep = range(2, rank), True
    else:
        axes, keep = integers(reader.context, node, 1, "axes"), attribute(node, "keepdims", 1)
        if not axes:
            return None
    axes = {axis % rank for axis in axes}
    gone = [atom for axis in axes for atom in term.dims[axis]]
    dims = tuple(() if axis in axes else dim for axis, dim in enumerate(term.dims) if keep or axis not in axes)
    expr = term.expr ** 2 if node.op_type in ("ReduceSumSquare", "ReduceL2") else term.expr
    expr = mean(expr, frozenset(gone)) if gone else expr
    if node.op_type in ("ReduceMean", "GlobalAveragePool"):
        return Term(expr, dims)
    count = size_of(tuple(gone))
    if not isinstance(count, int):
        return None
    return Term((expr * count) ** (0.5 if node.op_type == "ReduceL2" else 1), dims)


@_operator("InstanceNormalization")
def _instance_norm(reader: _Reader, node: ir.Node) -> Term | None:
    term = reader.input(node)
    if term is None or len(term.dims) < 3:
        return None
    return _normalised(reader, node, term, *_moments(term, term.dims[2:]))


@_operator("BatchNormalization")
def _batch_norm(reader: _Reader, node: ir.Node) -> Term | None:
    """By the batch's statistics: in training mode, or because the graph computes them (a layer that tracks none)."""
    term = reader.input(node)
    if term is None or len(term.dims) < 2 or not attribute(node, "spatial", 1):
        return None
    if is_training(node, reader.context.opset(node)):
        return _normalised(reader, node, term, *_moments(term, (term.dims[0], *term.dims[2:])))
    computed = [reader.terms.get(value) for value in node.inputs[3:5]]
    if any(value is None or value.dims != (term.dims[1],) for value in computed):
        return None
    return _normalised(reader, node, term, *(value.expr for value in computed))


def _moments(term: Term, dims: tuple[Dim, ...]) -> tuple[Expr, Expr]:
    gone = frozenset(atom for dim in dims for atom in dim)
    average = mean(term.expr, gone) if gone else term.expr
    squares = (term.expr - average) ** 2
    return average, mean(squares, gone) if gone else squares


def _normalised(reader: _Reader, node: ir.Node, term: Term, average: Expr, variance: Expr) -> Term | None:
    weights = [reader.context.array(value) for value in node.inputs[1:3]]
    if any(array is None or size_of(term.dims[1]) != array.size for array in weights):
        return None
    scale, bias = (_constant(array.reshape(1, -1), [(), term.dims[1]]) for array in weights)
    return Term((term.expr - average) / (variance + attribute(node, "epsilon", 1e-5)) ** 0.5 * scale + bias, term.dims)


@_operator("Transpose")
def _transpose(reader: _Reader, node: ir.Node) -> Term | None:
    term = reader.input(node)
    if term is None:
        return None
    order = attribute(node, "perm", range(len(term.dims))[::-1])
    return Term(term.expr, tuple(term.dims[axis] for axis in order))


@_operator("Unsqueeze", "Squeeze")
def _squeeze(reader: _Reader, node: ir.Node) -> Term | None:
    term, axes = reader.input(node), integers(reader.context, node, 1, "axes")
    if term is None or axes is None:
        return None
    dims = list(term.dims)
    if node.op_type == "Unsqueeze":
        rank = len(dims) + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            dims.insert(axis, ())
        return Term(term.expr, tuple(dims))
    axes = {axis % len(dims) for axis in axes}
    return None if any(dims[axis] for axis in axes) \
        else Term(term.expr, tuple(dim for axis, dim in enumerate(dims) if axis not in axes))


@_operator("Reshape", "Flatten")
def _reshape(reader: _Reader, node: ir.Node) -> Term | None:
    term = reader.input(node)
    sizes = shape_of(node.outputs[0])
    if term is None:
        return None
    if node.op_type == "Reshape":
        copied = not attribute(node, "allowzero", 0)
        sizes = [None if size == -1 else size_of(term.dims[axis]) if size == 0 and copied else size
                 for axis, size in enumerate(reader.sizes(node.inputs[1]) or sizes)]
    dims = regroup([atom for dim in term.dims for atom in dim], sizes)
    return None if dims is None else Term(term.expr, dims)


@_operator("Expand")
def _expand(reader: _Reader, node: ir.Node) -> Term | None:
    """Only as far as the whole tensor: there each dimension's part is known."""
    term = reader.input(node)
    if term is None:
        return None
    sizes = reader.sizes(node.inputs[1]) or shape_of(node.outputs[0])
    if len(sizes) < len(term.dims):
        sizes = [1] * (len(term.dims) - len(sizes)) + sizes
    own = ((),) * (len(sizes) - len(term.dims)) + term.dims
    if all(size in (1, size_of(dim)) for size, dim in zip(sizes, own)):
        return Term(term.expr, own)
    sizes = [size_of(dim) if dim else size for size, dim in zip(sizes, own)]
    dims = regroup(reader.atoms, sizes)
    return None if dims is None or any(dim and dim != whole for dim, whole in zip(own, dims)) else Term(term.expr, dims)
