"""Activations and normalisations that exporters spell out in many operators, recognised and named.

For every tensor of the graph, what is computed of it alone is read as formulas (`symbolic.py`). The outermost value that
one of the patterns describes, and whose inner values nothing else reads, becomes one node.
"""
from __future__ import annotations

from collections import deque

import onnx_ir as ir

from . import activations, norms
from .context import GraphContext
from .expression import match, parts
from .found import Found
from .shapes import dtype
from .symbolic import read

_PATTERNS: dict[tuple, list] = {}  # by what they are made of, which a formula has in common with its pattern
for _pattern, _build in (*norms.PATTERNS, *activations.PATTERNS):
    _PATTERNS.setdefault(parts(_pattern), []).append((_pattern, _build))


def apply(context: GraphContext) -> bool:
    """Replace everything in the main graph that a pattern describes, outermost first.

    (Subgraphs run in the reference, which would gain nothing, and ONNX infers no shapes of functions called in them.)
    """
    modified = False
    place = {node: index for index, node in enumerate(context.graph)}
    values = deque([*context.graph.inputs, *(value for node in place for value in node.outputs)])
    while values:
        x = values.popleft()
        result = _outermost(context, x, place)
        if result is not None:
            modified = True
            values.extendleft([result, x])
    return modified


def _outermost(context: GraphContext, x: ir.Value, place: dict[ir.Node, int]) -> ir.Value | None:
    """Replace the last value computed of `x` that can be; its replacement."""
    terms = read(context, x, place)
    for value in reversed(list(terms)[1:]):
        if terms[value].dims != terms[x].dims or dtype(value) != dtype(x):
            continue
        for pattern, build in _PATTERNS.get(parts(terms[value].expr), ()):
            for blanks in match(pattern, terms[value].expr):
                found = Found(context, x, value, terms, place, blanks)
                replaced = None if found.shape_nodes is None else build(found)
                if replaced is not None:
                    return replaced
    return None
