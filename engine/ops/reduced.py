"""Reductions of integers and float64, as compositions: halves of an axis are joined until one entry is left, in typed loops."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ..plan.tensor import NUMBERS, TYPES
from .base import NotNative, attr, counted
from .composed import Body, composed

JOIN = {"ReduceSum": "Add", "ReduceMean": "Add", "ReduceSumSquare": "Add", "ReduceL1": "Add", "ReduceL2": "Add",
        "ReduceProd": "Mul", "ReduceMax": "Max", "ReduceMin": "Min"}


@composed(*JOIN)
def reduce(b: Body) -> ir.Value:
    kind, shape, dtype = b.node.op_type, b.facts[0].shape, b.facts[0].dtype
    axes = attr(b.node, "axes")
    if b.given(1):
        if b.facts[1].value is None:
            raise NotNative("axes that depend on data")
        axes = b.facts[1].value.reshape(-1).tolist()
    if TYPES.get(dtype) not in NUMBERS or 0 in shape or (not axes and attr(b.node, "noop_with_empty_axes", 0)):
        raise NotNative(f"a reduction of {dtype} {list(shape)} over {axes or 'no axes'}")
    if kind in ("ReduceMean", "ReduceL2") and dtype.kind != "f":
        raise NotNative(f"a fraction of {dtype}")
    gone = {counted(a, len(shape)) for a in axes or range(len(shape))}
    x = b.inputs[0]
    x = b("Mul", x, x) if kind in ("ReduceSumSquare", "ReduceL2") else b("Abs", x) if kind == "ReduceL1" else x
    for axis in sorted(gone):
        x = _joined(b, lambda one, other: b(JOIN[kind], one, other), x, axis, shape[axis])
    if kind == "ReduceMean":
        x = b("Div", x, b.constant(np.array(np.prod([shape[axis] for axis in gone]), dtype)))
    x = b("Sqrt", x) if kind == "ReduceL2" else x
    kept = attr(b.node, "keepdims", 1)
    return b("Reshape", x, b.ints(*(1 if axis in gone else n for axis, n in enumerate(shape) if kept or axis not in gone)))


def _joined(b: Body, join: Callable[[ir.Value, ir.Value], ir.Value], x: ir.Value, axis: int, size: int) -> ir.Value:
    """The entries along the axis as one."""
    def part(first: int, last: int) -> ir.Value:
        return b("Slice", x, b.ints(first), b.ints(last), b.ints(axis))

    odd = None
    while size > 1:
        half, last = size // 2, part(size - 1, size) if size % 2 else None
        x, size = join(part(0, half), part(half, 2 * half)), half
        odd = odd if last is None else last if odd is None else join(odd, last)
    return x if odd is None else join(x, odd)
