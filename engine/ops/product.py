"""The one implicit matrix product that Conv, ConvTranspose, Gemm and MatMul lower to: output pixels x taps x packed weights."""
from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

from .. import _native
from ..plan.evaluate import PIECE, evaluate
from ..plan.lowering import Deferred
from ..plan.memory import round_up
from ..plan.tensor import BF16, Tensor
from .channel_map import NO_MAP
from .epilogue import Epilogue

BF16_COLUMNS, BF16_DEPTH, BF16_ROWS, BF16_BLOCK = 32, 32, 32, 64  # src_c/abi.h, drivers/conv_bf16.c
LINE, SETS = 32, 64  # numbers of a cache line; sets of a first-level cache
GUARD = 2048  # bytes of the first-level cache for everything else
SHARING = 8  # panels that share a block of a tile's rows in the first-level cache, if they sum in blocks of depth


def pad4(values, fill: int) -> list[int]:
    """(batch, spatial...) stretched to (batch, depth, height, width): missing spatial dimensions are outermost."""
    return [values[0], *[fill] * (4 - len(values)), *values[1:]]


class Packed(NamedTuple):
    """Weights in panels: `groups` matrices of k rows and `columns` columns, `stride` elements apart.

    terms: 0 for float32; otherwise each number is the sum of so many bf16 numbers.
    """

    tensor: Tensor
    columns: int
    stride: int
    terms: int = 0


def _size(ctx, depth: int, columns: int, terms: int) -> int:
    """Numbers of one packed matrix."""
    return terms * round_up(depth, BF16_DEPTH) * round_up(columns, BF16_COLUMNS) if terms else depth * round_up(columns, ctx.lanes)


def _panels(ctx, k, k_stride, columns: int, column_stride: int, groups: int, in_group: int, terms: int = 0) -> tuple[int, dict]:
    """Numbers of one packed matrix, and the parameters of the operation that packs it."""
    k, k_stride = [1] * (3 - len(k)) + list(k), [0] * (3 - len(k_stride)) + list(k_stride)
    stride = _size(ctx, prod(k), columns, terms)
    return stride, dict(k=k, k_stride=k_stride, columns=columns, column_stride=column_stride, groups=groups, in_group=in_group,
                        out_group=stride)


def pack_constant(ctx, key, array: np.ndarray, k, k_stride, columns: int, column_stride: int, groups: int = 1,
                  in_group: int = 0, terms: int = 0) -> Packed:
    """Pack a constant now. k, k_stride: up to three nested dimensions of the reduction, in elements of `array`; terms: of
    Packed."""
    stride, params = _panels(ctx, k, k_stride, columns, column_stride, groups, in_group, terms)
    step, dtype = ("pack_bf16", np.dtype(np.uint16)) if terms else ("pack", np.dtype(np.float32))
    params |= {"terms": terms} if terms else {}
    whole = (step, terms, *key, *params["k"], *params["k_stride"], columns, groups)
    tensor = ctx.precompute(whole, step, stride * groups, _pieces(ctx, array, params, terms), dtype)
    if len(key) == 1 and array.dtype == np.float32 and array.size == prod(params["k"]) * columns * groups:
        ctx.release(*key, again=None if terms else partial(_unpacked, ctx.isa, tensor.buffer.array, array.shape, params))
    return Packed(tensor, columns, stride, terms)


def _pieces(ctx, array: np.ndarray, params: dict, terms: int) -> Iterator[tuple[np.ndarray, int, int, dict]]:
    """Calls that pack the whole array; if its rows become columns, a few panels at a time."""
    depth, columns = prod(params["k"]), params["columns"]
    if array.size != columns * depth or params["column_stride"] != depth:
        yield array, 0, params["groups"] * params["out_group"], params
        return
    for at, some in row_pieces(array.reshape(columns, depth), BF16_COLUMNS if terms else ctx.nr):
        yield some, _size(ctx, depth, at, terms), _size(ctx, depth, len(some), terms), {**params, "columns": len(some)}


def row_pieces(array: np.ndarray, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """Rows that fill a few panels of `width` columns at a time, each time with the number of the first."""
    rows = max(PIECE // max(array[:1].nbytes, 1) // width, 1) * width
    for at in range(0, len(array), rows):
        yield at, array[at:at + rows]


def _unpacked(isa: str, packed: np.ndarray, shape: tuple[int, ...], params: dict) -> np.ndarray:
    """The array that was packed: numbering its elements and packing the numbers tells where each has gone."""
    out, numbers = np.empty(prod(shape), np.float32), np.zeros(packed.size, np.int32)
    evaluate(isa, "pack", np.arange(1, out.size + 1, dtype=np.int32), numbers, params)
    out[numbers[numbers > 0] - 1] = packed[numbers > 0]
    return out.reshape(shape)


def pack_step(ctx, source: Tensor, k, k_stride, columns: int, column_stride: int, groups: int = 1, in_group: int = 0) -> Packed:
    """Pack a computed matrix as a step of the plan; k, k_stride as in `pack_constant`."""
    stride, params = _panels(ctx, k, k_stride, columns, column_stride, groups, in_group)
    target = ctx.temporary((max(stride * groups, 1),))
    ctx.emit("pack", {"in": source, "out": target}, **params)
    return Packed(target, columns, stride)


def vector(ctx, array: np.ndarray | None, size: int, groups: int = 1) -> Tensor:
    """A per-channel constant (bias, slope) with room for whole vectors behind its end; zeros if None."""
    count = size * groups
    if array is not None and array.size != count:
        raise ValueError(f"{count} numbers expected, one for each channel, got {array.size}")
    room = count - size + round_up(size, ctx.lanes)

    def make():
        out = np.zeros(room, np.float32)
        if array is not None:
            out[:count] = array.reshape(-1)
        return out

    return ctx.constant(("vector", room, None if array is None else np.ascontiguousarray(array, np.float32).tobytes()), make)


def product(ctx, x: Tensor, weights: Packed, bias: Tensor, out: Tensor, taps, *, pixels, x_stride, out_stride, k: int,
            epilogue: Epilogue, groups: int = 1, in_group: int = 0, out_group: int = 0, bias_group: int = 0,
            residual: Tensor | None = None, res_stride=None, res_group: int | None = None, before: Deferred | None = None,
            sparse: int = 1) -> None:
    """Emit the step. pixels: output extents (batch, spatial...); strides in elements per output pixel index; before: a map of the
    input on its way in (one tap only); sparse: only one in so many products is not zero, and rounds."""
    chain = sparse * chain_of_sums(ctx, len(taps) * k // sparse, k // sparse)
    operation, panel, stage, how = "conv", prod((len(taps), k, ctx.nr, 4)), {}, {"chunk": chain}
    budget, share = (_native.cache_bytes(2) or 1 << 19) // 2, 0
    if weights.terms:
        depth = round_up(len(taps) * k, BF16_DEPTH)
        span = _block_of_depth(ctx, depth, weights.terms)
        plane = _plane(depth, span)
        row, panel = weights.terms * plane, 2 * weights.terms * depth * BF16_COLUMNS
        block = max(1, min(budget // (4 * row * BF16_ROWS), -(-prod(pixels) // BF16_ROWS))) * BF16_ROWS
        operation, how = "conv_bf16", {"terms": weights.terms, "block_rows": block, "stage_threads": ctx.options.threads,
                                       "depth": span, "plane": plane,
                                       **{f"{key}_half": t is not None and t.dtype == BF16
                                          for key, t in (("in", x), ("out", out), ("res", residual))}}
        share = min(max(budget // panel, SHARING), -(-weights.columns // BF16_COLUMNS)) if span < depth else 0
        stage = {"stage": ctx.scratch(ctx.options.threads * (block * row + share * 2 * BF16_ROWS * BF16_COLUMNS), np.uint16)}
    taps = tuple(int(t) for t in taps)
    args, parameters = ending(ctx, epilogue, groups)
    ctx.emit(
        operation,
        {"in": x, "w": weights.tensor, "bias": bias, "out": out, "res": residual, **args,
         "in_scale": before.scale if before else None, "in_shift": before.shift if before else None,
         "tap": ctx.constant(("taps", taps), lambda: np.array(taps, np.int64)), **stage},
        flops=2 * prod(pixels) * len(taps) * k * weights.columns * groups,
        n=pad4(pixels, 1), in_stride=pad4(x_stride, 0), out_stride=pad4(out_stride, 0),
        res_stride=pad4(res_stride, 0) if residual is not None else 0, taps=len(taps), k=k, groups=groups,
        columns=weights.columns, in_group=in_group, out_group=out_group,
        res_group=out_group if res_group is None else res_group, w_group=weights.stride, bias_group=bias_group,
        panels_per_block=max(1, share, budget // max(panel, 1)),
        **parameters, in_lo=before.low if before else 0.0, in_hi=before.high if before else 0.0,
        in_map_stride=before.by_image if before else 0, **how)


def _block_of_depth(ctx, depth: int, terms: int) -> int:
    """The most numbers of depth for which a tile's rows, a panel and their sums fit the first-level cache. Only with one
    term do tiles ask the second level for more than it gives: 64 bytes a cycle."""
    room = (_native.cache_bytes(1) or 1 << 15) - 4 * BF16_ROWS * BF16_COLUMNS - GUARD
    most = max(room // (2 * (BF16_ROWS + BF16_COLUMNS)) // BF16_BLOCK, 1) * BF16_BLOCK
    return depth if terms > 1 or _native.isa_info(ctx.isa)["bf16_rows"] == 1 else min(depth, most)


def _plane(depth: int, span: int) -> int:
    """Numbers from plane to plane of a stage: an odd count of cache lines, so that the rows of a tile fall into different sets of
    the first-level cache; their blocks of depth into sets behind one another."""
    lines = depth // LINE + 1
    while span < depth and lines % SETS < span // LINE:
        lines += 1
    return (lines | 1) * LINE


def chain_of_sums(ctx, depth: int, run: int, most: int = 128) -> int:
    """How many of `depth` products are summed in one chain, before its sum joins the others'.

    The mean square of the rounding errors grows with chain + depth / chain, which is least near the root of depth; a short chain
    takes time. `most` is a power of two; below precision "highest" it is near the answer. run: products under one tap: whole ones
    go into a chain, or whole chains into one, since what is left of a run would be a chain of its own.
    """
    chain = 16 if ctx.options.precision == "highest" else most
    while chain * chain < depth and chain < most:
        chain *= 2
    run = max(run, 1)
    return -(-run // round(run / chain)) if run >= chain else run * round(chain / run)


def ending(ctx, found: Epilogue, groups: int = 1) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What the C operation takes for an epilogue, residual aside (src_c/drivers/epilogue.h): vectors by channel, and parameters."""
    act, after = found.activation, found.map or NO_MAP
    vectors = {"slope": act.slope} | ({"scale": after.scale, "shift": after.shift} if found.map is not None else {})
    args = {name: vector(ctx, array, array.size // groups, groups) for name, array in vectors.items() if array is not None}
    return args, {"act": _native.ACTS[act.act], "a": act.a, "b": act.b, "post_lo": after.low, "post_hi": after.high}
