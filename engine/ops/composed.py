"""Operators that are compositions of others: bodies that the planner puts in their place, as ONNX does where it defines an operator
by a function."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from .base import NotNative, attr, counted, register_all

MOST_STEPS = 1 << 16  # entries that CumSum adds up in log2 as many steps, and of OneHot's table


class Body:
    """Nodes in the making, of opset 17. facts: of the call's inputs, None where one is absent; opset: the call's."""

    def __init__(self, node: ir.Node, facts: Sequence, opset: int) -> None:
        self.tape, self.node, self.facts, self.opset = Tape(), node, facts, opset
        self.inputs = [None if v is None or not v.name else ir.Value(name=v.name) for v in node.inputs]

    def __call__(self, op_type: str, *inputs: ir.Value | None, **attributes) -> ir.Value:
        return self.several(1, op_type, *inputs, **attributes)[0]

    def several(self, outputs: int, op_type: str, *inputs: ir.Value | None, **attributes) -> Sequence[ir.Value]:
        return self.tape.op_multi_out(op_type, list(inputs), attributes, num_outputs=outputs, version=17)

    def constant(self, array) -> ir.Value:
        return self("Constant", value=ir.tensor(np.asarray(array)))

    def ints(self, *values: int) -> ir.Value:
        return self.constant(np.array(values, np.int64))

    def cast(self, value: ir.Value, dtype) -> ir.Value:
        return self("Cast", value, to=ir.DataType.from_numpy(np.dtype(dtype)))

    def given(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None


_BODIES: dict[str, Callable[[Body], ir.Value | Sequence[ir.Value | None]]] = {}


def composed(*names: str):
    def register(make):
        for name in names:
            _BODIES[name] = make
        return make
    return register


def find(node: ir.Node) -> Callable[[Body], ir.Value | Sequence[ir.Value | None]] | None:
    register_all()
    return _BODIES.get(node.op_type) if node.domain in ("", "ai.onnx") else None


def names() -> set[str]:
    register_all()
    return set(_BODIES)


def body(node: ir.Node, facts: Sequence, opset: int) -> list[ir.Node]:
    """The nodes in the node's place. Raises NotNative."""
    made = Body(node, facts, opset)
    outputs = find(node)(made)
    for call, value in zip(node.outputs, [outputs] if isinstance(outputs, ir.Value) else outputs):
        if value is not None and call.name:
            value.name = call.name
    return list(made.tape.nodes)


@composed("Einsum")
def einsum(b: Body) -> ir.Value:
    """Products of two, from left to right, each one MatMul of [batch, row, sum] and [batch, sum, column]."""
    terms, result = _subscripts(attr(b.node, "equation"), [len(f.shape) for f in b.facts])
    size: dict[str, int] = {}
    for term, fact in zip(terms, b.facts):
        if len(set(term)) != len(term):
            raise NotNative("an index twice in one operand")
        for letter, n in zip(term, fact.shape):
            if size.setdefault(letter, n) != n:
                raise NotNative("an index of several sizes")
    left, have = b.inputs[0], terms[0]
    for i in range(1, len(terms)):
        later = set(result).union(*terms[i + 1:])
        left, have = _product(b, left, have, b.inputs[i], terms[i], later, size)
    left, have = _summed(b, left, have, set(result))
    return b("Transpose", left, perm=[have.index(c) for c in result])


def _subscripts(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Letters of each operand and of the result; `...` becomes Greek ones."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    named = [len(t.replace("...", "")) for t in terms]
    most = max((r - n for t, n, r in zip(terms, named, ranks) if "..." in t), default=0)
    spare = "".join(map(chr, range(0x3B1, 0x3B1 + most)))
    if any("..." not in t and n != r for t, n, r in zip(terms, named, ranks)):
        raise ValueError(f"the equation {equation!r} for operands of {ranks} dimensions")
    terms = [t.replace("...", spare[most - (r - n):] if "..." in t else "") for t, n, r in zip(terms, named, ranks)]
    if not arrow:
        letters = "".join(terms)
        result = "..." * (most > 0) + "".join(sorted(c for c in set(letters) - set(spare) if letters.count(c) == 1))
    return terms, result.replace("...", spare)


def _summed(b: Body, value: ir.Value, have: str, wanted: set[str]) -> tuple[ir.Value, str]:
    axes = [i for i, c in enumerate(have) if c not in wanted]
    if not axes:
        return value, have
    return b("ReduceSum", value, b.ints(*axes), keepdims=0), "".join(c for c in have if c in wanted)


def _product(b: Body, x: ir.Value, have: str, y: ir.Value, other: str, later: set[str],
             size: dict[str, int]) -> tuple[ir.Value, str]:
    x, have = _summed(b, x, have, later | set(other))
    y, other = _summed(b, y, other, later | set(have))
    batch = [c for c in have if c in other and c in later]
    total = [c for c in have if c in other and c not in later]
    rows, columns = [c for c in have if c not in other], [c for c in other if c not in have]

    def matrix(value: ir.Value, letters: str, *groups: list[str]) -> ir.Value:
        value = b("Transpose", value, perm=[letters.index(c) for group in groups for c in group])
        return b("Reshape", value, b.ints(*(int(np.prod([size[c] for c in group], dtype=np.int64)) for group in groups)))

    out = b("MatMul", matrix(x, have, batch, rows, total), matrix(y, other, batch, total, columns))
    letters = batch + rows + columns
    return b("Reshape", out, b.ints(*(size[c] for c in letters))), "".join(letters)


@composed("OneHot")
def one_hot(b: Body) -> ir.Value:
    rank, depth = len(b.facts[0].shape) + 1, b.facts[1].value
    if depth is None or int(depth.reshape(-1)[0]) > MOST_STEPS:
        raise NotNative("a depth that depends on data, or is large")
    axis, depth = counted(attr(b.node, "axis", -1), rank), int(depth.reshape(-1)[0])
    places = np.arange(depth, dtype=np.int64).reshape([-1 if d == axis else 1 for d in range(rank)])
    index = b("Reshape", b.cast(b.inputs[0], np.int64), b.ints(*b.facts[0].shape[:axis], 1, *b.facts[0].shape[axis:]))
    chosen = b("Or", b("Equal", index, b.constant(places)), b("Equal", index, b.constant(places - depth)))
    off, on = (b("Gather", b.inputs[2], b.constant(np.int64(i)), axis=0) for i in (0, 1))
    return b("Where", chosen, on, off)


@composed("Hardmax")
def hardmax(b: Body) -> ir.Value:
    fact, old = b.facts[0], b.opset < 13
    axis = attr(b.node, "axis", 1 if old else -1)
    shape, x = fact.shape, b.inputs[0]
    if 0 in shape:
        return b("Identity", x)
    if old:  # all dimensions from the axis on are one
        axis = axis % (len(shape) + 1) if axis >= 0 else axis + len(shape)
        shape = (int(np.prod(shape[:axis])), int(np.prod(shape[axis:])))
        x, axis = b("Reshape", x, b.ints(*shape)), 1
    axis = counted(axis, len(shape))
    places = np.arange(shape[axis]).reshape([-1 if d == axis else 1 for d in range(len(shape))])
    out = b.cast(b("Equal", b("ArgMax", x, axis=axis, keepdims=1), b.constant(places)), fact.dtype)
    return b("Reshape", out, b.ints(*fact.shape)) if old else out


@composed("Pow")
def power(b: Body) -> ir.Value:
    """An exponent of another type."""
    base, exponent = (f.dtype for f in b.facts)
    if base.kind != "f" or base == exponent:
        raise NotNative(f"powers of {base}")
    return b("Pow", b.inputs[0], b.cast(b.inputs[1], base))


@composed("CumSum")
def cum_sum(b: Body) -> ir.Value:
    """After step k each entry is the sum of 2^k: log2 as many additions of a whole tensor (Hillis & Steele, 1986)."""
    shape, axis = b.facts[0].shape, b.facts[1].value
    if axis is None:
        raise NotNative("an axis that depends on data")
    axis = counted(int(axis.reshape(-1)[0]), len(shape))
    size, x, reverse = shape[axis], b.inputs[0], attr(b.node, "reverse", 0)
    if size > MOST_STEPS or 0 in shape:
        raise NotNative(f"sums of {size} entries")

    def part(value: ir.Value, first: int, last: int, step: int = 1) -> ir.Value:
        return b("Slice", value, b.ints(first), b.ints(last), b.ints(axis), b.ints(step))

    x = part(x, -1, -size - 1, -1) if reverse else x
    if attr(b.node, "exclusive", 0):
        zeros = b.constant(np.zeros((), b.facts[0].dtype))
        zeros = b("Expand", zeros, b.ints(*(1 if d == axis else n for d, n in enumerate(shape))))
        x = b("Concat", zeros, part(x, 0, size - 1), axis=axis)
    reach = 1
    while reach < size:
        x = b("Concat", part(x, 0, reach), b("Add", part(x, reach, size), part(x, 0, size - reach)), axis=axis)
        reach *= 2
    return part(x, -1, -size - 1, -1) if reverse else b("Identity", x)


@composed("Unique")
def unique(b: Body) -> list[ir.Value | None]:
    """Equal entries are neighbours once they are sorted; the first of each lot is kept, which is also where it comes first."""
    if "axis" in b.node.attributes or not attr(b.node, "sorted", 1):
        raise NotNative("entries that are slices, or in the order of their coming")
    size = int(np.prod(b.facts[0].shape))
    if not 0 < size <= MOST_STEPS:
        raise NotNative(f"{size} entries")
    values, places = b.several(2, "TopK", b("Reshape", b.inputs[0], b.ints(-1)), b.ints(size), largest=0)

    def part(first: int, last: int) -> ir.Value:
        return b("Slice", values, b.ints(first), b.ints(last))

    heads = b("Concat", b.constant(np.ones(1, bool)), b("Not", b("Equal", part(1, size), part(0, size - 1))), axis=0)
    outputs = [b("Compress", values, heads, axis=0)]
    wanted = [v.name != "" for v in b.node.outputs] + [False] * 3
    outputs.append(b("Compress", places, heads, axis=0) if wanted[1] else None)
    number = b("Sub", b("CumSum", b.cast(heads, np.int32), b.constant(np.int64(0))), b.constant(np.int32(1)))
    outputs.append(b("ScatterElements", places, places, b.cast(number, np.int64), axis=0) if wanted[2] else None)
    if wanted[3]:
        begins = b("Reshape", b("NonZero", heads), b.ints(-1))
        ends = b("Concat", b("Slice", begins, b.ints(1), b.ints(size)), b.ints(size), axis=0)
        outputs.append(b("Sub", ends, begins))
    return outputs[:len(b.node.outputs)]
