"""Gemm and MatMul as implicit matrix products: one tap, rows as pixels, a batch of matrices as groups."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

import numpy as np

from ..plan.choice import Way
from ..plan.tensor import Tensor
from .base import NotNative, attr, op
from .epilogue import Epilogue, epilogue, take
from .product import Packed, pack_constant, pack_step, product, vector
from .splits import SPLITS, ProductSize, allowed, cycles


def _matrix(ctx, name: str) -> Tensor:
    """The tensor with a last dimension that is contiguous and rows that are evenly spaced per dimension."""
    t = ctx.tensor(name)
    if t.strides[-1] == 1 or t.shape[-1] == 1:
        return t
    return ctx.rows(name)


def _row_space(t: Tensor) -> tuple[list[int], list[int]] | None:
    """All dimensions but the last, merged where possible, as at most four (extent, stride), outermost first."""
    dims: list[list[int]] = []
    for n, s in zip(t.shape[:-1], t.strides[:-1]):
        if n == 1:
            continue
        if dims and dims[-1][1] == n * s:
            dims[-1] = [dims[-1][0] * n, s]
        else:
            dims.append([n, s])
    if len(dims) > 4:
        return None
    dims = [[1, 0]] * (4 - len(dims)) + dims
    return [d[0] for d in dims], [d[1] for d in dims]


def _rows_strides(shape, spaces: list[int]) -> list[int]:
    """Strides of a row-major tensor over a merged row space."""
    step, out = shape[-1], []
    for n in reversed(spaces):
        out.append(step)
        step *= n
    return out[::-1]


def times_constant(ctx, node, a: Tensor, weight: np.ndarray, transposed: bool, bias: np.ndarray | None, found: Epilogue,
                   scale: float = 1.0) -> None:
    """out = a @ weight (or weight.T) + bias, then the epilogue; `a` has any leading dimensions."""
    k, columns = (weight.shape[1], weight.shape[0]) if transposed else weight.shape
    space = _row_space(a)
    out = ctx.output(found.output, image=False)
    array = weight if scale == 1.0 else (weight.astype(np.float64) * scale).astype(np.float32)
    residual = ctx.rows(found.residual) if found.residual is not None else None
    extents, strides = space
    out_strides = _rows_strides(out.shape, extents)
    emit = partial(product, ctx, a, bias=vector(ctx, bias, columns), out=out, taps=[0], pixels=extents, x_stride=strides,
                   out_stride=out_strides, k=k, epilogue=found, residual=residual, res_stride=out_strides)
    times(ctx, node, node.inputs[1].name, array, transposed, prod(extents), emit, () if scale == 1.0 else ("scaled", scale))


def times(ctx, node, name: str, array: np.ndarray, transposed: bool, rows: int, emit: Callable[[Packed], None],
          variant: tuple = ()) -> None:
    """Multiply `rows` rows by a matrix, the constant `name` or a variant of it, in the way with the least estimated time: it is
    packed, and `emit` makes the step."""
    k, columns = array.shape[::-1] if transposed else array.shape

    def way(kind: str) -> None:
        emit(pack_constant(ctx, ctx.key(name) + variant, array, (k,), (1 if transposed else columns,), columns,
                           k if transposed else 1, terms=SPLITS[kind].terms))

    size = ProductSize(rows, k, columns)
    ways = [Way(kind, cycles(ctx, kind, size), partial(way, kind)) for kind in allowed(ctx)]
    ctx.compute(ways)


def _epilogue(ctx, node) -> Epilogue:
    """Channels are the columns of a matrix only: elsewhere they are dimension 1."""
    return epilogue(ctx, node, residual=True, per_channel=len(ctx.shape(node.outputs[0].name)) == 2)


def _product_shape(node, inputs) -> list[tuple[int, ...]] | None:
    a, b = inputs[0].shape, inputs[1].shape
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        return None
    try:
        return [(*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])]
    except ValueError:
        return None


@op("MatMul", infer=_product_shape)
def matmul(ctx, node) -> None:
    a_name, b_name = node.inputs[0].name, node.inputs[1].name
    a_shape, b_shape, shape = ctx.shape(a_name), ctx.shape(b_name), ctx.shape(node.outputs[0].name)
    if 0 in (*a_shape, *b_shape):
        raise NotNative("an empty tensor")
    if len(a_shape) < 2 or len(b_shape) < 2:
        raise NotNative("a vector operand")
    weight = ctx.constant_value(node.inputs[1])
    if weight is not None and (weight.ndim == 2 or prod(weight.shape[:-2]) == 1):
        if len(shape) != len(a_shape) or _row_space(ctx.tensor(a_name)) is None:
            raise NotNative("more than four row dimensions")
        found = _matmul_bias(ctx, node)
        take(ctx, found[0])
        times_constant(ctx, node, _matrix(ctx, a_name), weight.reshape(weight.shape[-2:]), False, found[1], found[0])
        return
    _batched(ctx, node, a_name, b_name, shape)


def _matmul_bias(ctx, node) -> tuple[Epilogue, np.ndarray | None]:
    """MatMul, then Add of a constant row: the row becomes the product's bias."""
    columns = ctx.shape(node.outputs[0].name)[-1]
    reader = ctx.graph.only_reader(node.outputs[0].name)
    if reader is not None and reader.op_type == "Add" and not reader.domain and reader not in ctx.done:
        at = [v.name for v in reader.inputs].index(node.outputs[0].name)
        row = ctx.constant_value(reader.inputs[1 - at])
        if row is not None and row.size == columns and row.shape[-1] == columns:
            found = _epilogue(ctx, reader)
            found.nodes.insert(0, reader)
            return found, row
    return _epilogue(ctx, node), None


def _batched(ctx, node, a_name: str, b_name: str, shape) -> None:
    """A product of two computed tensors: one packing step, one step with a group for each matrix b. Dimensions of the batch along
    which b does not vary are more rows."""
    batch, (m, n) = shape[:-2], shape[-2:]
    if len(batch) > 4:
        raise NotNative("more than four batch dimensions")
    a, b = _matrix(ctx, a_name), ctx.tensor(b_name)
    k = a.shape[-1]

    def strides(t: Tensor, dims: list[int]) -> list[int]:
        wide = t.broadcast((*batch, *t.shape[-2:])).strides
        return [wide[d] for d in dims]

    def one_stride(t: Tensor, dims: list[int]) -> int | None:
        """The stride of these dimensions of the batch merged, None if they do not merge."""
        stride, merged = 0, 1
        for extent, s in reversed([*zip((batch[d] for d in dims), strides(t, dims))]):
            if extent == 1:
                continue
            if merged == 1:
                stride = s
            elif s != stride * merged:
                return None
            merged *= extent
        return stride

    def evenly(t: Tensor, dims: list[int]) -> Tensor:
        if one_stride(t, dims) is not None:
            return t
        target = ctx.temporary((*batch, *t.shape[-2:]))
        ctx.copy(t.broadcast(target.shape), target)
        return target

    out, every = ctx.output(node.outputs[0].name, image=False), list(range(len(batch)))
    rows = [d for d in every if batch[d] > 1 and strides(b, [d]) == [0]]
    groups = [d for d in every if d not in rows]
    if len(rows) > 3 or one_stride(out, groups) is None or one_stride(a, groups) is None:
        rows, groups = [], every
    a, b = evenly(a, groups), evenly(b, groups)
    count = prod(batch[d] for d in groups)
    packed = pack_step(ctx, b, (k,), (b.strides[-2],), n, b.strides[-1], count, one_stride(b, groups))
    product(ctx, a, packed, vector(ctx, None, n), out, [0], pixels=[1] * (3 - len(rows)) + [*(batch[d] for d in rows), m],
            x_stride=[0] * (3 - len(rows)) + [*strides(a, rows), a.strides[-2]],
            out_stride=[0] * (3 - len(rows)) + [*strides(out, rows), n], k=k, epilogue=Epilogue(node.outputs[0].name), groups=count,
            in_group=one_stride(a, groups), out_group=one_stride(out, groups))


@op("Gemm")
def gemm(ctx, node) -> None:
    a_value, b_value = node.inputs[:2]
    alpha, beta = attr(node, "alpha", 1.0), attr(node, "beta", 1.0)
    trans_a, trans_b = attr(node, "transA", 0), attr(node, "transB", 0)
    shape = ctx.shape(node.outputs[0].name)
    c_value = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] is not None and node.inputs[2].name else None
    weight = ctx.constant_value(b_value)
    if 0 in (*ctx.shape(a_value.name), *shape):
        raise NotNative("an empty tensor")
    c = ctx.constant_value(c_value)
    bias = _row(c, shape[1], beta)
    if c_value is not None and bias is None:
        raise NotNative("an addend that is no constant row")
    if weight is None and alpha != 1.0:
        raise NotNative("a scaled product of two computed matrices")
    a = ctx.tensor(a_value.name)
    if trans_a:
        a = a.view(a.shape[::-1], a.strides[::-1])
    if a.strides[-1] != 1 and a.shape[-1] != 1:
        target = ctx.temporary(a.shape)
        ctx.copy(a, target)
        a = target
    found = _epilogue(ctx, node)
    take(ctx, found)
    if weight is not None:
        times_constant(ctx, node, a, weight, bool(trans_b), bias, found, alpha)
        return
    b = ctx.tensor(b_value.name)
    k_stride, column_stride = b.strides[::-1] if trans_b else b.strides
    out = ctx.output(found.output, image=False)
    packed = pack_step(ctx, b, (a.shape[1],), (k_stride,), shape[1], column_stride)
    residual = ctx.rows(found.residual) if found.residual is not None else None
    product(ctx, a, packed, vector(ctx, bias, shape[1]), out, [0], pixels=[1, shape[0]],
            x_stride=[0, a.strides[0]], out_stride=[0, shape[1]], k=a.shape[1], epilogue=found, residual=residual,
            res_stride=[0, shape[1]])


def _row(c: np.ndarray | None, columns: int, beta: float) -> np.ndarray | None:
    """beta * C as one row, if every row of C is the same."""
    if c is None or (c.ndim == 2 and c.shape[0] != 1) or c.ndim > 2:
        return None
    return (np.broadcast_to(c.reshape(-1), (columns,)).astype(np.float64) * beta).astype(np.float32)
