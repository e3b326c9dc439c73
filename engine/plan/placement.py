"""Where a value should be born: inside the wider image of a channel Concat, with the zero border its readers want, or directly in
the array handed to the caller. These are wishes: every reader checks what it gets and copies if a wish could not be met."""
from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING
from weakref import proxy

import numpy as np
import onnx_ir as ir

from ..ops import base
from .tensor import BF16, F32, Buffer, Tensor, row_strides

if TYPE_CHECKING:
    from .lowering import Lowering

FOLLOWERS = ("Add", "Mul", "BatchNormalization")  # what may be the end of a convolution
DEPTH = 64  # how far wishes are followed through Concat after Concat


class Placement:
    def __init__(self, ctx: Lowering) -> None:
        self.ctx = proxy(ctx)  # who owns this: no cycle, or a plan's memory would wait for Python's collector
        self.regions: dict[str, Buffer] = {}  # graph outputs' own memory, by name
        self._parents: dict[ir.Node, Tensor] = {}
        self._half: dict[str, bool] = {}

    def output(self, name: str, image: bool, like: Tensor | None = None, half: bool = False) -> Tensor:
        ctx = self.ctx
        fact = ctx.facts[name]
        shape = fact.shape
        if len(shape) < 3:
            image = False
        flat = image and (shape[1] == 1 or all(n == 1 for n in shape[2:]))  # NCHW and NHWC are the same
        slot = self._slot(name) if image else None
        parent = self._parent(slot[0]) if slot is not None else None
        if parent is not None and (half or parent.dtype == fact.dtype):
            channel = slot[1]
            return parent.view(shape, parent.strides, channel * parent.strides[1], parent.border)
        border = self.border(name) if image else None
        if name in self.regions and not border and (not image or flat):
            return Tensor(self.regions[name], shape, row_strides(shape), fact.dtype)
        if image:
            return ctx.new_image(shape, border or (), BF16 if half and self.half(name) else F32)
        if like is None or like.is_rows():
            return ctx.temporary(shape, fact.dtype)
        order = sorted(range(len(shape)), key=lambda d: -abs(like.strides[d]))
        memory = ctx.temporary([shape[d] for d in order], fact.dtype)
        return memory.view(shape, [memory.strides[order.index(d)] for d in range(len(shape))])

    def half(self, name: str, depth: int = 0) -> bool:
        """Whether a float32 image is better kept as bf16 numbers: the precision allows it, and whoever reads it reads those."""
        ctx = self.ctx
        if name not in self._half:
            fact, readers = ctx.facts[name], ctx.graph.readers(name)
            image = ctx.halves and fact.dtype == F32 and len(fact.shape) >= 3 and prod(fact.shape[2:]) > 1
            self._half[name] = True  # for those who ask for it on the way to its answer
            self._half[name] = image and depth < DEPTH and bool(readers) and name not in ctx.graph.outputs and all(
                self._reads_half(node, name, depth) for node in readers)
        return self._half[name]

    def _reads_half(self, node: ir.Node, name: str, depth: int) -> bool:
        if not known_output(self.ctx, node):
            return False
        if self._is_channel_concat(node):
            return all(map(self._made_in_half, node.inputs)) and self.half(node.outputs[0].name, depth + 1)
        op = base.find(node)
        return op is not None and op.half is not None and op.half(self.ctx, node, name)

    def _made_in_half(self, value: ir.Value) -> bool:
        """Whether the first operator behind the value that works on bf16 numbers can write it: those between are its epilogue."""
        node = value.producer()
        while node is not None and node.inputs and node.inputs[0] is not None:
            name, op = node.inputs[0].name, base.find(node)
            if op is not None and op.half is not None and node.op_type not in FOLLOWERS:
                return op.half(self.ctx, node, name)
            if self._is_channel_concat(node):
                return True
            node = node.inputs[0].producer() if self.ctx.graph.only_reader(name) is node else None
        return False

    def _slot(self, name: str) -> tuple[ir.Node, int] | None:
        """The widest channel Concat that reads the value, and its first channel there."""
        best, width = None, 0
        for node in self.ctx.graph.readers(name):
            if not self._is_channel_concat(node):
                continue
            names = [v.name for v in node.inputs]
            channels = self.ctx.shape(node.outputs[0].name)[1]
            if names.count(name) == 1 and channels > width:
                before = sum(self.ctx.shape(n)[1] for n in names[:names.index(name)])
                best, width = (node, before), channels
        return best

    def _is_channel_concat(self, node: ir.Node) -> bool:
        if node.op_type != "Concat" or node.domain or node in self.ctx.done:
            return False
        fact = self.ctx.facts.get(node.outputs[0].name)
        if fact is None or fact.shape is None or fact.dtype != np.float32 or len(fact.shape) < 3:
            return False
        return base.attr(node, "axis", 1) in (1, 1 - len(fact.shape))

    def _keeps_pixels(self, node: ir.Node) -> bool:
        return (node.op_type in ("Split", "Slice") and not node.domain) or self._is_channel_concat(node)

    def _parent(self, concat: ir.Node) -> Tensor:
        if concat not in self._parents:
            half = all(map(self._made_in_half, concat.inputs))
            self._parents[concat] = self.output(concat.outputs[0].name, image=True, half=half)
        return self._parents[concat]

    def parent(self, concat: ir.Node) -> Tensor | None:
        """The image already made for the Concat's output, if an input asked for it."""
        return self._parents.get(concat)

    def read_as_image(self, name: str) -> bool:
        """Whether all readers are windows over an image, which want its channels together."""
        ops = [base.find(node) for node in self.ctx.graph.readers(name)]
        return bool(ops) and name not in self.ctx.graph.outputs and all(op is not None and op.border is not None for op in ops)

    def border(self, name: str, depth: int = 0) -> tuple | None:
        """The largest zero border that any reader wants, seen through channel Concat and Split; None if nobody wants one."""
        ctx = self.ctx
        wanted: list[tuple] = []
        for node in ctx.graph.readers(name):
            op = base.find(node)
            if op is not None and op.border is not None:
                for index, value in enumerate(node.inputs):
                    if value is not None and value.name == name and known_output(ctx, node):
                        wanted.append(op.border(ctx, node, index))
            elif depth < DEPTH and known_output(ctx, node) and self._keeps_pixels(node):
                same_size = [o.name for o in node.outputs if ctx.shape(o.name)[2:] == ctx.shape(name)[2:]]
                wanted += filter(None, (self.border(o, depth + 1) for o in same_size))
        wanted = [w for w in wanted if w and any(a or b for a, b in w)]
        if not wanted:
            return None
        return tuple((max(w[d][0] for w in wanted), max(w[d][1] for w in wanted)) for d in range(len(wanted[0])))


def known_output(ctx: Lowering, node: ir.Node) -> bool:
    facts = [ctx.facts.get(o.name) for o in node.outputs if o.name]
    return all(f is not None and f.shape is not None for f in facts)
