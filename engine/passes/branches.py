"""Parallel linear branches: a sum of convolutions, BatchNormalizations and shortcuts of one input is one convolution.

    x --+-- Conv 3x3 --+                     RepVGG, MobileOne, ACNet and DBB are trained like that. Each branch is a
        +-- Conv 1x1 --+-- Add -- ...        kernel over the same input: 1x1 is a 3x3 with zeros around its centre, a
        +-- BatchNorm -+                     BatchNormalization or x itself a diagonal 1x1. So the kernels add up.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from . import affine
from .affine import Affine, Channels
from .context import GraphContext, attribute, is_op
from .linear import Convolution, bias, read
from .rounding import rounded, rounded_rows


def apply(context: GraphContext) -> bool:
    """Merge the branches of each sum that read one input, where the merged kernel has no more taps than they had."""
    modified = False
    for node in context.nodes():
        modified |= _add_negative(context, node)
    for node in reversed(list(context.nodes())):  # the last addition of a sum first: it sees all the terms
        if node.graph is not None and _is_sum(node):
            modified |= _merge_branches(context, node)
    return modified


class _Branch(NamedTuple):
    """A term of a sum as a kernel over `source`: weight [M, C/g, k...], bias [M] in float64.

    Along each spatial axis the first tap reads at `begin` relative to output position * stride, the next ones
    `dilation` further each (0 where there is one tap), and the output exceeds the input by `growth` at stride 1.
    """

    term: ir.Value
    source: ir.Value
    weight: np.ndarray
    bias: np.ndarray
    begin: tuple[int, ...]
    dilation: tuple[int, ...]
    growth: tuple[int, ...]
    strides: tuple[int, ...]
    group: int
    nodes: tuple[ir.Node, ...]

    @property
    def taps(self) -> int:
        """What the branch costs by itself, per output; BatchNormalizations and shortcuts count as nothing."""
        return int(np.prod(self.weight.shape[2:])) if is_op(self.nodes[0] if self.nodes else None, "Conv") else 0

    def is_parallel(self, other: _Branch) -> bool:
        """Whether both read the same source and make outputs of the same size."""
        return self.source is other.source and self.strides == other.strides and self.group == other.group \
            and self.growth == other.growth and self.weight.shape[:2] == other.weight.shape[:2]


def _add_negative(context: GraphContext, node: ir.Node) -> bool:
    """a - b as a + (-b) where a BatchNormalization or convolution makes b for it alone and can take the sign, which is exact."""
    layer = node.inputs[1].producer() if is_op(node, "Sub") and "broadcast" not in node.attributes else None
    if not is_op(layer, "BatchNormalization", "Conv") or context.sole_user(layer.outputs[0]) is not node:
        return False
    arrays = {place: context.array(value) for place, value in enumerate(layer.inputs[1:3], 1) if value is not None}
    if any(array is None for array in arrays.values()):
        return False
    for place, array in arrays.items():
        context.set_constant(layer, place, -array, f"{layer.inputs[place].name}_negative")
    context.rename(layer.outputs[0])
    node.op_type = "Add"
    return True


def _is_sum(node: ir.Node | None) -> bool:
    return is_op(node, "Add", "Sum") and "broadcast" not in node.attributes


def _merge_branches(context: GraphContext, root: ir.Node) -> bool:
    additions, terms = [root], []
    _flatten(context, root, additions, terms)
    convolutions = [branch for term in terms if (branch := _convolution(context, term, root)) is not None]
    convolutions.sort(key=lambda branch: branch.taps, reverse=True)
    for first in convolutions:
        group = [first]
        others = [branch for branch in convolutions if branch is not first and branch.is_parallel(first)]
        others += [branch for term in terms if (branch := _diagonal(context, term, first, root)) is not None]
        for branch in others:
            box = _box([*group, branch])
            if box is not None and np.prod(box.size) <= sum(each.taps for each in (*group, branch)):
                group.append(branch)
        if len(group) > 1 and _merge(context, group):
            gone = {branch.term for branch in group[1:]}
            _add_up(context, root, [term for term in terms if term not in gone], additions)
            context.remove(*(node for branch in group[1:] for node in branch.nodes))
            return True
    return False


def _flatten(context: GraphContext, node: ir.Node, additions: list[ir.Node], terms: list[ir.Value]) -> None:
    """The terms of a sum, through additions that nothing else reads."""
    for value in node.inputs:
        inner = value.producer()
        if _is_sum(inner) and inner.graph is node.graph and context.sole_user(value) is node:
            additions.append(inner)
            _flatten(context, inner, additions, terms)
        else:
            terms.append(value)


def _convolution(context: GraphContext, term: ir.Value, root: ir.Node) -> _Branch | None:
    node = term.producer()
    if not is_op(node, "Conv") or context.sole_user(term) is None or node.graph is not root.graph:
        return None
    if not isinstance(read(context, node), Convolution):
        return None
    weight = context.array(node.inputs[1])
    size = weight.shape[2:]
    steps = tuple(attribute(node, "dilations", [1] * len(size)))
    strides = tuple(attribute(node, "strides", [1] * len(size)))
    reach = [(count - 1) * step for count, step in zip(size, steps)]
    pads = _pads(node, reach, strides)
    if pads is None or min(pads) < 0:
        return None
    before, after = pads[:len(size)], pads[len(size):]
    return _Branch(term, node.inputs[0], weight, bias(context, node),
                   begin=tuple(-pad for pad in before),
                   dilation=tuple(step if count > 1 else 0 for count, step in zip(size, steps)),
                   growth=tuple(a + b - r for a, b, r in zip(before, after, reach)),
                   strides=strides, group=attribute(node, "group", 1), nodes=(node,))


def _pads(node: ir.Node, reach: list[int], strides: tuple[int, ...]) -> list[int] | None:
    """Begins then ends; None where they depend on the input's size."""
    match attribute(node, "auto_pad", "NOTSET"):
        case "NOTSET":
            return list(attribute(node, "pads", [0] * 2 * len(reach)))
        case "VALID":
            return [0] * 2 * len(reach)
        case mode if set(strides) == {1}:
            less, more = [total // 2 for total in reach], [total - total // 2 for total in reach]
            return less + more if mode == "SAME_UPPER" else more + less
    return None


def _diagonal(context: GraphContext, term: ir.Value, like: _Branch, root: ir.Node) -> _Branch | None:
    """The source itself, or a per-channel affine map of it, as a 1x1 kernel beside the convolution `like`."""
    count, per_group = like.weight.shape[:2]
    rank = like.weight.ndim
    if set(like.strides) != {1} or any(like.growth) or per_group * like.group != count:
        return None
    channels = Channels(count, from_end=rank - 1, rank=rank, least_rank=rank)
    total, nodes, value = Affine.identity(count), [], term
    while value is not like.source:
        node = value.producer()
        if node is None or node.graph is not root.graph or context.sole_user(value) is None:
            return None
        source = next((each for each in node.inputs if each is not None and context.tensor(each) is None), None)
        if source is None:
            return None
        step = affine.step(context, node, source, channels)
        if not isinstance(step, Affine):
            return None
        total, value = step.then(total), source
        nodes.append(node)
    if not (np.isfinite(total.scale).all() and np.isfinite(total.shift).all()):
        return None
    weight = np.zeros((count, per_group))
    weight[np.arange(count), np.arange(count) % per_group] = total.scale
    point = (0,) * (rank - 2)
    return _Branch(term, like.source, weight.reshape(count, per_group, *(1,) * (rank - 2)), total.shift, begin=point,
                   dilation=point, growth=point, strides=like.strides, group=like.group, nodes=tuple(nodes))


class _Box(NamedTuple):
    """The taps of several kernels on one grid."""

    begin: tuple[int, ...]
    size: tuple[int, ...]
    dilation: tuple[int, ...]


def _box(group: list[_Branch]) -> _Box | None:
    """The smallest kernel that has all taps of the group, or None if they are on no common grid."""
    begin, size, dilation = [], [], []
    for axis in range(len(group[0].begin)):
        steps = {branch.dilation[axis] for branch in group} - {0}
        starts = [branch.begin[axis] for branch in group]
        first = min(starts)
        if len(steps) > 1:
            return None
        step = steps.pop() if steps else max(start - first for start in starts) or 1
        if any((start - first) % step for start in starts):
            return None
        ends = [start + (branch.weight.shape[2 + axis] - 1) * step for start, branch in zip(starts, group)]
        begin.append(first)
        size.append((max(ends) - first) // step + 1)
        dilation.append(step)
    return _Box(tuple(begin), tuple(size), tuple(dilation))


def _merge(context: GraphContext, group: list[_Branch]) -> bool:
    """Make the first branch's convolution the sum of all; refuse where its weights would overflow."""
    node, box = group[0].nodes[0], _box(group)
    shape = (*group[0].weight.shape[:2], *box.size)

    def wide(rows: slice) -> np.ndarray:
        total = np.zeros((rows.stop - rows.start, *shape[1:]))
        for branch in group:
            corner = [(start - first) // step for start, first, step in zip(branch.begin, box.begin, box.dilation)]
            place = tuple(slice(at, at + count) for at, count in zip(corner, branch.weight.shape[2:]))
            total[(..., *place)] += branch.weight[rows]
        return total

    dtype = context.tensor(node.inputs[1]).dtype.numpy()
    weight, bias = rounded_rows(shape, dtype, wide), rounded(sum(branch.bias for branch in group), dtype)
    if weight is None or bias is None:
        return False
    name = node.inputs[1].name
    context.set_constant(node, 1, weight, f"{name}_merged")
    context.set_constant(node, 2, bias, f"{name}_bias")
    before = [-first for first in box.begin]
    after = [growth + first + (count - 1) * step for growth, first, count, step
             in zip(group[0].growth, box.begin, box.size, box.dilation)]
    node.attributes.pop("auto_pad", None)
    for key, value in (("pads", before + after), ("kernel_shape", box.size), ("dilations", box.dilation)):
        node.attributes[key] = ir.AttrInt64s(key, value)
    context.rename(node.outputs[0])
    for branch in group[1:]:
        for gone in branch.nodes:
            if is_op(gone, "BatchNormalization"):
                context.folded(gone, node)
    return True


def _add_up(context: GraphContext, root: ir.Node, terms: list[ir.Value], additions: list[ir.Node]) -> None:
    """Replace the additions of a sum by those of its remaining terms."""
    total = terms[0]
    for term in terms[1:]:
        root.prepend(add := ir.node("Add", [total, term]))
        total = add.outputs[0]
        total.type, total.name = root.outputs[0].type, context.unique_name(f"{root.outputs[0].name}_sum")
    context.supersede(root.outputs[0], total)
    context.remove(*additions)
