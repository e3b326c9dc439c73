"""Cast and CastLike among numbers of 8 to 64 bits, half precisions and truth values."""
from __future__ import annotations

from ..plan.tensor import ANY, TYPES
from .base import op
from .typed import mapped


@op("Cast", "CastLike", types=ANY)
def cast(ctx, node) -> None:
    source, dtype = ctx.tensor(node.inputs[0].name), ctx.facts[node.outputs[0].name].dtype
    if source.dtype == dtype:
        ctx.bind(node.outputs[0].name, source)
        return
    mapped(ctx, f"CAST_{TYPES[source.dtype]}_{TYPES[dtype]}", [source], node.outputs[0].name)
