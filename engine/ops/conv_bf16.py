"""Convolution as an implicit matrix product of bf16 numbers: each float32 as one, two or three of them (splits.py)."""
from __future__ import annotations

from functools import partial

from ..plan.choice import Way
from .conv_direct import product_way
from .convolution import Convolution
from .splits import SPLITS


def _split(name: str, ctx, c: Convolution) -> Way | None:
    return product_way(ctx, c, name) if c.weight is not None and ctx.options.precision in SPLITS[name].levels else None


BF16 = tuple(partial(_split, name) for name, split in SPLITS.items() if split.terms)
