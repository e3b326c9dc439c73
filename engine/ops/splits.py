"""How a matrix product of float32 numbers may be computed: which ways the session's precision allows, and what they cost.

x = h + m + l with h = bf16(x), m = bf16(x - h), l = bf16(x - h - m) holds all 24 bits of a float32. One term is plain bf16; with
two, the three largest of the products of the parts leave an error of some 2^-16; with three, six products leave less than float32's
rounding.
(Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", 2019.)
"""
from __future__ import annotations

from math import inf
from typing import NamedTuple

from .. import _native
from ..plan.memory import round_up


class Split(NamedTuple):
    """terms: bf16 numbers for each float32, 0: none; products: of which pairs; levels: precisions that allow it."""

    terms: int
    products: int
    levels: tuple[str, ...]


SPLITS = {
    "direct": Split(0, 1, ("highest", "high", "medium")),
    "bf16": Split(1, 1, ("medium",)),
    "bf16x3": Split(2, 3, ("high", "medium")),
    "bf16x6": Split(3, 6, ("highest", "high", "medium")),
}

STAGING = 0.2  # cycles to convert one number into one term
FAR_BYTE = 1 / 12  # cycles for a byte of weights from beyond the second-level cache
# Tiles, in cycles of the float32 kernels: of the instruction's rate, and for a sum to leave its tile through memory. So fitted,
# estimates are those of a prototype measured on a core with AMX (GFLOP/s over ResNet-50's shapes, small to large: float32 165 to
# 197, six products 190 to 330, three 310 to 660, one 480 to 1410).
TILE_RATE, TILE_ENDS = 0.7, 0.3


class ProductSize(NamedTuple):
    """pixels x depth x columns multiply-adds in each of the groups."""

    pixels: int
    depth: int
    columns: int
    groups: int = 1


def cycles(ctx, name: str, size: ProductSize) -> float:
    """The estimate for one thread; infinite where bf16 is emulated. Few pixels take as long as the weights need to arrive."""
    split = SPLITS[name]
    if not split.terms:
        work = size.pixels * size.depth * -(-size.columns // ctx.lanes) / 2
    else:
        info = _native.isa_info(ctx.isa)
        if not info["bf16_macs"]:
            return inf
        tiles = info["bf16_rows"] > 1
        macs = round_up(size.depth, info["bf16_depth"]) * round_up(size.columns, 16) * split.products
        work = round_up(size.pixels, info["bf16_rows"]) * macs / (info["bf16_macs"] * (TILE_RATE if tiles else 1))
        work += size.pixels * (STAGING * size.depth * split.terms + (TILE_ENDS * size.columns if tiles else 0))
    return size.groups * max(work, size.depth * size.columns * (2 * split.terms or 4) * FAR_BYTE)


def allowed(ctx) -> list[str]:
    """The names in SPLITS that the session's precision allows."""
    return [name for name, split in SPLITS.items() if ctx.options.precision in split.levels]


def fastest(ctx, size: ProductSize) -> str:
    return min(allowed(ctx), key=lambda name: cycles(ctx, name, size))
