"""What asks which elements come first: TopK, ArgMax, ArgMin. The driver `order` answers with indices."""
from __future__ import annotations

import numpy as np

from ..plan.tensor import TYPES, Tensor
from .base import NotNative, attr, counted, op
from .index import pick_elements
from .space import check_rank, space

KEYS = {"f32": 0, "f64": 1, "i64": 2}
WIDER = {"f16": np.float32, "bf16": np.float32,  # in equal order
         **dict.fromkeys(("i8", "i16", "i32", "u8", "u16", "u32"), np.int64)}
ORDERED = (*KEYS, *WIDER)


def first(ctx, x: Tensor, axis: int, k: int, largest: bool) -> Tensor:
    """Indices along the axis of the k largest or smallest elements, in order: x's shape with k at the axis."""
    check_rank(x.shape, (axis,))
    if TYPES[x.dtype] in WIDER:
        x = ctx.cast(x, WIDER[TYPES[x.dtype]])
    rest = [d for d in range(len(x.shape)) if d != axis]
    memory = ctx.temporary([*(x.shape[d] for d in rest), k], np.int64)
    if memory.size:
        rows, (steps,) = space([x.shape[d] for d in rest], [x.strides[d] for d in rest])
        ctx.emit("order", {"in": x, "out": memory}, n=rows, in_stride=steps, length=x.shape[axis], step=x.strides[axis], k=k,
                 largest=largest, type=KEYS[TYPES[x.dtype]])
    order = [*rest, axis]
    return memory.view([memory.shape[order.index(d)] for d in range(len(order))],
                       [memory.strides[order.index(d)] for d in range(len(order))])


@op("TopK", types=ORDERED)
def top_k(ctx, node) -> None:
    x = ctx.tensor(node.inputs[0].name)
    axis = counted(attr(node, "axis", -1), len(x.shape))
    k = int(ctx.need(node.inputs[1]).reshape(-1)[0]) if len(node.inputs) > 1 else attr(node, "k")
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(f"the first {k} of {x.shape[axis]}")
    index = first(ctx, x, axis, k, bool(attr(node, "largest", 1)))
    values, places = node.outputs[0].name, node.outputs[1].name if len(node.outputs) > 1 else ""
    if places:
        ctx.bind(places, index)
    if values:
        pick_elements(ctx, x, index, ctx.output(values, image=False), axis)


@op("ArgMax", "ArgMin", types=ORDERED)
def extreme(ctx, node) -> None:
    x, output = ctx.tensor(node.inputs[0].name), node.outputs[0].name
    axis = counted(attr(node, "axis", 0), len(x.shape))
    if x.shape[axis] == 0:
        raise NotNative("an empty axis")
    last = bool(attr(node, "select_last_index", 0))
    if last:
        x = x.view(x.shape, [-s if d == axis else s for d, s in enumerate(x.strides)], (x.shape[axis] - 1) * x.strides[axis])
    index = first(ctx, x, axis, 1, node.op_type == "ArgMax")
    if last:
        ctx.map("SUB_i64", [ctx.scalar(x.shape[axis] - 1, np.int64), index], index)
    ctx.bind(output, index.reshape(ctx.shape(output)))
