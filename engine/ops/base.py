"""How an operator is described to the planner: one `Op` record per operator type, registered by the decorator `op`."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir


class NotNative(Exception):
    """Raised by a lowering that cannot serve this node; the node runs in the fallback, and the message tells the user why."""


class NeedsValue(Exception):
    """Raised where a lowering needs the contents of a value that only the run will know: the plan is cut before this node."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Op(NamedTuple):
    """One operator type.

    lower(ctx, node): emit steps and bind every output; raise NotNative before emitting anything if it cannot.
    infer(node, input facts) -> output shapes, or (shape, dtype) where the data type is not the first input's: for what onnx's own
        inference does not know (old opsets, infold's functions), and for what networks are full of, since asking onnx takes a
        quarter of a millisecond; None for anything unusual, which onnx then judges.
    border(ctx, node, index) -> zero pixels ((before, after), ...) per spatial dimension that the lowering wants around input
        `index`; a producer that knows it in advance leaves room, and no copy is needed.
    half(ctx, node, name) -> whether the lowering reads the value `name` as an image of bf16 numbers, too (see `Placement.half`).
    bound(node, input facts) -> (shape, dtype, axis) of a single output whose length along `axis` only the run knows: the most there
        can be. lower then computes into memory of that shape, and the length into the output that `ctx.counts` names.
    by_value: already the first input may be one whose contents decide the output's shape.
    types: the element types, by their short names (see `plan.tensor.TYPES`), that the first input and the first output may have.
    """

    lower: Callable[[Any, ir.Node], None]  # ctx is a plan.lowering.Lowering; this file stands below it and cannot name it
    infer: Callable[[ir.Node, list], list[Iterable[int]] | None] | None = None
    border: Callable[[Any, ir.Node, int], tuple] | None = None
    half: Callable[[Any, ir.Node, str], bool] | None = None
    bound: Callable[[ir.Node, list], tuple[Iterable[int], Any, int]] | None = None
    by_value: bool = False
    types: tuple[str, ...] = ("f32",)


_OPS: dict[tuple[str, str], Op] = {}


def op(*names: str, domain: str = "", **traits: Any):
    """Register the decorated lowering for operator types `names`."""
    def register(lower):
        for name in names:
            _OPS[domain, name] = Op(lower, **traits)
        return lower
    return register


@cache
def register_all() -> None:
    for module in iter_modules(import_module(__package__).__path__):
        import_module(f"{__package__}.{module.name}")


def find(node: ir.Node) -> Op | None:
    register_all()
    return _OPS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))


def attr(node: ir.Node, name: str, default: Any = None) -> Any:
    """The attribute's Python value (str for strings, list for lists), or the default."""
    attribute = node.attributes.data.get(name)  # the mapping itself raises and catches where there is none
    if attribute is None:
        return default
    value = attribute.value
    return list(value) if isinstance(value, tuple) else value


def counted(axis: int, rank: int) -> int:
    """The axis counted from the first dimension. Raises ValueError if there is none such: the planner names the node."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} of {rank} dimensions")
    return int(axis) % rank


def integers(fact: Any) -> list[int] | None:
    """What a list of int64 numbers holds, where it is known before the run; None for anything else."""
    known = None if fact is None else fact.value
    return known.tolist() if known is not None and known.dtype == np.int64 and known.ndim == 1 else None


def same_shape(node: ir.Node, inputs: list) -> list:
    """`infer` of elementwise functions of the first input."""
    return [inputs[0].shape]
