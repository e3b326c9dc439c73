"""Normalisations that exporters spell out in many operators."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .expression import Call, Expr, Mean, Number, Weight, X
from .found import Build, Found
from .functions import call, substitute

_LEAST_OPSET = 13  # of what the functions' bodies are written in


def _variance(over: str) -> Expr:
    return Mean((X - Mean(X, over)) ** 2, over)


def _channel_weights(found: Found, *names: str) -> list[ir.Value] | None:
    arrays = [found.array(name, 1) for name in names]
    if any(array is None for array in arrays):
        return None
    return [_constant(found, array, name) for name, array in zip(names, arrays)]


def _constant(found: Found, array: np.ndarray, name: str) -> ir.Value:
    return found.context.constant(np.ascontiguousarray(array, np.float32), f"{found.result.name}_{name}")


def _groups(found: Found) -> int | None:
    """Into how many groups of channels the image is cut, if the statistics are those of such a group and all pixels."""
    gone, channels = found.blanks["axes"], found.x.shape[1] if found.rank > 2 else None
    inner = gone - found.atoms(*range(2, found.rank))
    if not isinstance(channels, int) or len(gone) != len(inner) + len(found.atoms(*range(2, found.rank))):
        return None
    match sorted(inner):
        case []:
            return channels
        case [(1, 1, count)]:
            return channels // count
        case _:
            return None


def _evo_norm_s0(found: Found) -> ir.Value | None:
    groups, weights = _groups(found), _channel_weights(found, "v", "gamma", "beta")
    if groups is None or weights is None:
        return None
    attributes = {"groups": groups, "epsilon": found.blanks["epsilon"]}
    return substitute(found.context, found.nodes, [call(found.context, "EvoNormS0", [found.x, *weights], attributes)])


def _evo_norm_b0(found: Found) -> ir.Value | None:
    epsilon, left = found.blanks["epsilon"], found.array("left", 1)
    weights = _channel_weights(found, "v", "gamma", "beta")
    if found.blanks["axes"] != found.atoms(*range(2, found.rank)) or weights is None or left is None or (left <= 0).any():
        return None
    weights.append(_constant(found, left ** 2 - epsilon, "running_var"))
    return substitute(found.context, found.nodes, [call(found.context, "EvoNormB0", [found.x, *weights], {"epsilon": epsilon})])


def _evo_norm_b0_of_the_batch(found: Found) -> ir.Value | None:
    weights = _channel_weights(found, "v", "gamma", "beta")
    pixels = found.atoms(*range(2, found.rank))
    if found.blanks["axes"] != pixels or found.blanks["batch"] != pixels | found.atoms(0) or weights is None:
        return None
    return substitute(found.context, found.nodes, [call(found.context, "EvoNormB0", [found.x, *weights],
                                                        {"epsilon": found.blanks["epsilon"]}, overload="batch")])


_EPSILON, _V, _GAMMA, _BETA = Number("epsilon"), Weight("v"), Weight("gamma"), Weight("beta")
_DEVIATION = (_variance("axes") + _EPSILON) ** 0.5

PATTERNS: tuple[tuple[Expr, Build], ...] = (
    (X * Call("Sigmoid", (X * _V,)) / _DEVIATION * _GAMMA + _BETA, _evo_norm_s0),
    (X / Call("Max", (Weight("left"), X * _V + _DEVIATION)) * _GAMMA + _BETA, _evo_norm_b0),
    (X / Call("Max", ((_variance("batch") + _EPSILON) ** 0.5, X * _V + _DEVIATION)) * _GAMMA + _BETA,
     _evo_norm_b0_of_the_batch),
)
