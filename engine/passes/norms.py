"""Normalisations that exporters spell out in many operators.

Each is a formula with blanks. Which standard norm it is follows from the axes its statistics run over, and along which
its scale and shift vary: rows (LayerNorm, RMSNorm), pixels (InstanceNorm), pixels and some channels (GroupNorm); for
channels in another place than ONNX's operators have them, between two Transposes, which cost the planner nothing.
"""
from __future__ import annotations

from collections.abc import Iterator
from math import isclose, sqrt

import numpy as np
import onnx_ir as ir

from .bodies import BODIES
from .expression import Call, Constant, Expr, Mean, Number, Weight, X, lift
from .found import Build, Found
from .functions import call
from .shapes import dtype

_LEAST_OPSET = 13  # of what the functions' bodies are written in
_STANDARD = {"LayerNormalization": 17, "RMSNormalization": 23, "InstanceNormalization": 6, "GroupNormalization": 21,
             "BatchNormalization": 14}
_NONE = Constant(0.0, None)


def _put(found: Found, name: str, weights: dict[str, np.ndarray] | None, attributes: dict[str, int | float],
         channels: int = 1, overload: str = "", standard: bool = False) -> ir.Value | None:
    """One node in the place of what was found: an operator of ONNX where there is one, else a function of infold's.

    Args:
        weights: None if they do not fit this norm.
        channels: the axis that the node wants on place 1; behind the last one, to stay there: -1.
    """
    context, opset = found.context, found.context.model.opset_imports[""]
    if weights is None or opset < _LEAST_OPSET or dtype(found.x) != ir.DataType.FLOAT or attributes["epsilon"] <= 0:
        return None  # without epsilon, a tensor of zeros gives NaN, which kernels need not
    if sum(node.op_type != "Transpose" for node in found.nodes) < 2:
        return None  # it is a normalisation already
    order = [0, *range(2, found.rank), 1] if channels == -1 else [0, channels, *(a for a in range(1, found.rank) if a != channels)]
    moved = order != list(range(found.rank))
    nodes = [ir.node("Transpose", [found.x], {"perm": order})] if moved else []
    inputs = [nodes[0].outputs[0] if moved else found.x]
    inputs += [context.constant(np.ascontiguousarray(array, np.float32), f"{found.result.name}_{key}")
               for key, array in weights.items()]
    if standard and opset >= _STANDARD[name]:
        nodes.append(ir.node(name, inputs, attributes))
    elif (name, overload) not in BODIES:
        return None
    else:
        nodes.append(call(context, name, inputs, attributes, overload))
    if moved:
        nodes.append(ir.node("Transpose", nodes[-1].outputs, {"perm": np.argsort(order).tolist()}))
    for node in nodes[:-1]:
        node.outputs[0].name = context.unique_name(f"{found.result.name}_{node.op_type.lower()}")
        node.name = node.outputs[0].name
    batchnorms, result = [node for node in found.nodes if node.op_type == "BatchNormalization"], found.replace(*nodes)
    if name == "BatchNormalization":
        context.replaced(batchnorms, result.producer(), result.name)
    else:
        for batchnorm in batchnorms:
            context.folded(batchnorm, nodes[moved])
    return result


def _weights(found: Found, axes: tuple[int, ...], *names: str) -> dict[str, np.ndarray] | None:
    arrays = {name: found.array(name, *axes) for name in names}
    return None if any(array is None for array in arrays.values()) else arrays


def _row(found: Found) -> int | None:
    """The first axis of the rows that the statistics run over."""
    gone = found.blanks["axes"]
    first = next(axis for axis in range(found.rank) if gone & found.atoms(axis))
    return first if first and gone == found.atoms(*range(first, found.rank)) else None


def _groups(found: Found, channels: int) -> int | None:
    """Into how many groups of channels an image is cut, if the statistics run over such a group and all pixels."""
    gone, count = found.blanks["axes"], found.x.shape[channels]
    pixels = found.atoms(*range(1, found.rank)) - found.atoms(channels)
    if found.rank < 3 or not pixels <= gone or not isinstance(count, int):
        return None
    match sorted(gone - pixels):
        case []:
            return count
        case [(axis, 1, size)] if axis == channels:
            return count // size
        case _:
            return None


def _standard(found: Found) -> ir.Value | None:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta."""
    attributes = {"epsilon": found.blanks["epsilon"]}
    row = _row(found)
    if row == found.rank - 1 and (result := _layer_norm(found, row, attributes)) is not None:
        return result
    for channels in (1, found.rank - 1):
        groups = _groups(found, channels)
        weights = groups and _weights(found, (channels,), "gamma", "beta")
        if not weights:
            continue
        if groups == found.x.shape[channels]:
            return _put(found, "InstanceNormalization", weights, attributes, channels, standard=True)
        if found.context.model.opset_imports[""] >= _STANDARD["GroupNormalization"]:
            return _put(found, "GroupNormalization", weights, {**attributes, "num_groups": groups}, channels, standard=True)
        return _put(found, "GroupNorm", weights, {**attributes, "groups": groups}, channels)
    if row is not None:
        return _layer_norm(found, row, attributes)
    if found.blanks["axes"] == found.atoms(1):
        return _put(found, "LayerNormalization", _weights(found, (1,), "gamma", "beta"), {**attributes, "axis": -1}, -1,
                    standard=True)
    if found.blanks["axes"] == found.atoms(0, *range(2, found.rank)) and (weights := _weights(found, (1,), "gamma", "beta")):
        unused = {"mean": np.zeros_like(weights["gamma"]), "variance": np.ones_like(weights["gamma"])}
        return _put(found, "BatchNormalization", weights | unused, {**attributes, "training_mode": 1}, standard=True)
    return None


def _layer_norm(found: Found, row: int, attributes: dict) -> ir.Value | None:
    weights = _weights(found, tuple(range(row, found.rank)), "gamma", "beta")
    return _put(found, "LayerNormalization", weights, {**attributes, "axis": row}, standard=True)


def _root_mean_square(found: Found) -> ir.Value | None:
    """x / sqrt(mean(x^2) + epsilon) * gamma + beta: RMSNorm without a shift, FilterResponseNorm over the pixels."""
    attributes, row = {"epsilon": found.blanks["epsilon"]}, _row(found)
    shifted = found.blanks["beta"] != _NONE
    if row is not None and not shifted and (found.rank < 4 or row != 2):
        weights = _weights(found, tuple(range(row, found.rank)), "gamma")
        return _put(found, "RMSNormalization", weights, {**attributes, "axis": row}, standard=True)
    if found.blanks["axes"] == found.atoms(1) and not shifted:
        return _put(found, "RMSNormalization", _weights(found, (1,), "gamma"), {**attributes, "axis": -1}, -1, standard=True)
    for channels in (1, found.rank - 1):
        if _groups(found, channels) == found.x.shape[channels]:
            return _put(found, "FilterResponseNorm", _weights(found, (channels,), "gamma", "beta"), attributes, channels)
    return None


def _layer_norm_std(found: Found) -> ir.Value | None:
    """(x - mean) / (d + e) * gamma + beta, d the biased deviation: with the unbiased s = k d, k (x - mean) / (s + k e)."""
    row = _row(found)
    weights = None if row is None else _weights(found, tuple(range(row, found.rank)), "gamma", "beta")
    if weights is None or (count := weights["gamma"].size) < 2:
        return None
    k = sqrt(count / (count - 1))
    weights["gamma"] = weights["gamma"] * k
    return _put(found, "LayerNormStd", weights, {"axis": row, "epsilon": found.blanks["epsilon"] * k})


def _l2_norm(found: Found) -> ir.Value | None:
    """x / max(root * sqrt(mean(x^2)), least), which is x / max(|x|, least) where root^2 is the number of elements."""
    root, least, gone = found.blanks["root"], found.blanks["least"], found.blanks["axes"]
    axis = next(axis for axis in range(found.rank) if gone & found.atoms(axis))
    size = found.x.shape[axis]
    if gone != found.atoms(axis) or root.array or least.array or not isinstance(size, int) or not isclose(root.number ** 2, size):
        return None
    return _put(found, "L2Normalization", {}, {"axis": axis, "epsilon": least.number})


def _evo_norm_s0(found: Found) -> ir.Value | None:
    groups = _groups(found, 1)
    return groups and _put(found, "EvoNormS0", _weights(found, (1,), "v", "gamma", "beta"),
                           {"groups": groups, "epsilon": found.blanks["epsilon"]})


def _evo_norm_b0(found: Found) -> ir.Value | None:
    weights, epsilon = _weights(found, (1,), "v", "gamma", "beta", "left"), found.blanks["epsilon"]
    if weights is None or _groups(found, 1) != found.x.shape[1] or ((left := weights.pop("left")) <= 0).any():
        return None
    return _put(found, "EvoNormB0", {**weights, "running_var": left ** 2 - epsilon}, {"epsilon": epsilon})


def _evo_norm_b0_of_the_batch(found: Found) -> ir.Value | None:
    if _groups(found, 1) != found.x.shape[1] or found.blanks["batch"] != found.blanks["axes"] | found.atoms(0):
        return None
    return _put(found, "EvoNormB0", _weights(found, (1,), "v", "gamma", "beta"), {"epsilon": found.blanks["epsilon"]},
                overload="batch")


def _variances(over: str) -> tuple[Expr, ...]:
    """The mean of squares may also be taken of x itself (Flax does, and clamps what rounding leaves below zero)."""
    direct, by_squares = Mean((X - Mean(X, over)) ** 2, over), Mean(X ** 2, over) - Mean(X, over) ** 2
    return direct, by_squares, Call("Max", (by_squares, lift(0.0)))


def _patterns() -> Iterator[tuple[Expr, Build]]:
    epsilon, gamma, beta, v = Number("epsilon"), Weight("gamma"), Weight("beta"), Weight("v")
    mean = Mean(X, "axes")
    for variance in _variances("axes"):
        factor = (variance + epsilon) ** -0.5 * gamma
        yield (X - mean) * factor + beta, _standard
        yield X * factor - mean * factor + beta, _standard  # TensorFlow: x * factor + (beta - mean * factor)
        yield (X - mean) / (variance ** 0.5 + epsilon) * gamma + beta, _layer_norm_std
    yield X * (Mean(X ** 2, "axes") + epsilon) ** -0.5 * gamma + beta, _root_mean_square
    yield X / Call("Max", (Mean(X ** 2, "axes") ** 0.5 * Weight("root"), Weight("least"))), _l2_norm
    deviation = (_variances("axes")[0] + epsilon) ** 0.5
    yield X * Call("Sigmoid", (X * v,)) / deviation * gamma + beta, _evo_norm_s0
    yield X / Call("Max", (Weight("left"), X * v + deviation)) * gamma + beta, _evo_norm_b0
    of_batch = (_variances("batch")[0] + epsilon) ** 0.5
    yield X / Call("Max", (of_batch, X * v + deviation)) * gamma + beta, _evo_norm_b0_of_the_batch


PATTERNS = tuple(_patterns())
