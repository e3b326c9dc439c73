"""How a matrix product of float32 numbers may be computed: which ways the session's precision allows, and what they cost.

x = h + m + l with h = bf16(x), m = bf16(x - h), l = bf16(x - h - m) holds all 24 bits of a float32. One term is plain bf16; with
two, the three largest of the products of the parts leave an error of some 2^-16; with three, six products leave less than float32's
rounding.
(Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", 2019.)
"""
from __future__ import annotations

from dataclasses import dataclass
from math import inf

from .. import _native
from ..plan.memory import round_up


@dataclass(frozen=True)
class Split:
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


@dataclass(frozen=True)
class ProductSize:
    """pixels x depth x columns multiply-adds in each of the groups."""

    pixels: int
    depth: int
    columns: int
    groups: int = 1


def cycles(ctx, name: str, size: ProductSize) -> float:
    """The estimate for one thread; infinite where bf16 is emulated."""
    split = SPLITS[name]
    if not split.terms:
        return size.groups * size.pixels * size.depth * -(-size.columns // ctx.lanes) / 2
    info = _native.isa_info(ctx.isa)
    macs = info["bf16_macs"]
    if not macs:
        return inf
    work = round_up(size.depth, info["bf16_depth"]) * round_up(size.columns, 16) * split.products / macs
    return size.groups * size.pixels * (work + STAGING * size.depth * split.terms)


def allowed(ctx) -> list[str]:
    """The names in SPLITS that the session's precision allows."""
    return [name for name, split in SPLITS.items() if ctx.options.precision in split.levels]


def fastest(ctx, size: ProductSize) -> str:
    return min(allowed(ctx), key=lambda name: cycles(ctx, name, size))
