"""Elementwise functions of one tensor; most can also end a convolution (`activation_of`)."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..plan.tensor import NUMBERS, TYPES, prefers_image
from .base import NotNative, attr, op, same_shape
from .typed import mapped

PLAIN = {  # operator -> act
    "Relu": "RELU", "Sigmoid": "SIGMOID", "HardSwish": "HARD_SWISH", "Tanh": "TANH", "Softplus": "SOFTPLUS", "Softsign": "SOFTSIGN",
    "Mish": "MISH", "Exp": "EXP", "Log": "LOG", "Sqrt": "SQRT", "Reciprocal": "RECIPROCAL", "Abs": "ABS", "Neg": "NEG",
    "Floor": "FLOOR", "Ceil": "CEIL", "Round": "ROUND", "Erf": "ERF", "Sign": "SIGN",
}
DOUBLE = ("Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Reciprocal", "Erf", "Floor", "Ceil", "Round")  # of float64, too
FUNCTIONS = {"HardSwish": "HARD_SWISH", "Silu": "SILU", "Gelu": "GELU", "GeluTanh": "GELU_TANH", "Mish": "MISH"}  # domain infold


class Activation(NamedTuple):
    """An act of the kernels with its two parameters, or PReLU with a slope per channel."""

    act: str = "IDENTITY"
    a: float = 0.0
    b: float = 0.0
    slope: np.ndarray | None = None


NOTHING = Activation()


def activation_of(ctx, node) -> Activation | None:
    """What the node computes of its first input, if it is an elementwise function with constant parameters."""
    kind = node.op_type
    if node.domain == "infold":
        if kind == "HardSigmoid":
            return Activation("HARD_SIGMOID", attr(node, "alpha", 0.2), attr(node, "beta", 0.5))
        return Activation(FUNCTIONS[kind], 1.0) if kind in FUNCTIONS else None
    if node.domain:
        return None
    if kind in PLAIN:
        return Activation(PLAIN[kind])
    if kind == "Clip":
        return _clip(ctx, node)
    if kind == "LeakyRelu":
        return Activation("LEAKY_RELU", attr(node, "alpha", 0.01))
    if kind == "HardSigmoid":
        return Activation("HARD_SIGMOID", attr(node, "alpha", 0.2), attr(node, "beta", 0.5))
    if kind == "Elu":
        return Activation("ELU", attr(node, "alpha", 1.0))
    if kind == "Celu":
        return Activation("CELU", attr(node, "alpha", 1.0))
    if kind == "Selu":
        old = ctx.opset(node) < 6
        return Activation("SELU", attr(node, "alpha", 1.6732 if old else 1.67326319217681884765625),
                          attr(node, "gamma", 1.0507 if old else 1.05070102214813232421875))
    if kind == "ThresholdedRelu":
        return Activation("THRESHOLDED_RELU", attr(node, "alpha", 1.0))
    if kind == "Gelu":
        return Activation("GELU_TANH" if attr(node, "approximate", "none") == "tanh" else "GELU")
    if kind == "Swish":
        return Activation("SILU", attr(node, "alpha", 1.0))
    if kind == "PRelu":
        return _prelu(ctx, node)
    return None


def _clip(ctx, node) -> Activation | None:
    if ctx.opset(node) < 11:
        low, high = attr(node, "min", -np.inf), attr(node, "max", np.inf)
    else:
        low, high = -np.inf, np.inf
        for index, value in enumerate(node.inputs[1:3]):
            if value is None or not value.name:
                continue
            bound = ctx.constant_value(value)
            if bound is None:
                return None
            low, high = (float(bound.reshape(-1)[0]), high) if index == 0 else (low, float(bound.reshape(-1)[0]))
    # ONNX: with min > max every element becomes max, which min(high, max(low, x)) gives too
    return Activation("CLIP", float(low), float(high))


def _prelu(ctx, node) -> Activation | None:
    slope = ctx.constant_value(node.inputs[1])
    shape = ctx.shape(node.inputs[0].name)
    if slope is None:
        return None
    if slope.size == 1:
        return Activation("LEAKY_RELU", float(slope.reshape(-1)[0]))
    if len(shape) >= 2 and slope.size == shape[1]:
        trailing = len(shape) - 2
        shape_ok = slope.shape == (shape[1],) + (1,) * trailing or slope.shape == (1, shape[1]) + (1,) * trailing
        if shape_ok or (slope.ndim == 1 and (trailing == 0 or ctx.opset(node) < 7)):
            return Activation("PRELU", slope=np.ascontiguousarray(slope.reshape(-1), np.float32))
    return None


@op("Abs", "Neg", "Sign", "Clip", infer=same_shape, types=NUMBERS)
@op(*DOUBLE, infer=same_shape, types=("f32", "f64"))
@op("Relu", "HardSwish", "Softplus", "Softsign", "Mish", "LeakyRelu", "HardSigmoid", "Elu", "Celu", "Selu", "ThresholdedRelu",
    "Gelu", "Swish", infer=same_shape)
def unary(ctx, node) -> None:
    if ctx.facts[node.inputs[0].name].dtype != np.float32:
        _typed(ctx, node)
        return
    found = activation_of(ctx, node)
    if found is None:
        raise NotNative("its bounds depend on data")
    if np.isnan((found.a, found.b)).any():
        raise NotNative("a parameter that is not a number")
    source = ctx.tensor(node.inputs[0].name)
    target = ctx.output(node.outputs[0].name, image=prefers_image(source))
    ctx.unary(found.act, source, target, found.a, found.b)


def _typed(ctx, node) -> None:
    """What there is for integers and float64."""
    x, output = ctx.tensor(node.inputs[0].name), node.outputs[0].name
    if node.op_type != "Clip":
        mapped(ctx, f"{PLAIN.get(node.op_type)}_{TYPES[x.dtype]}", [x], output)
        return
    bounds = [(loop, ctx.tensor(v.name)) for loop, v in zip(("MAX", "MIN"), node.inputs[1:]) if v is not None and v.name]
    if ctx.opset(node) < 12 or not bounds:
        raise NotNative(f"data type {x.dtype} without bounds as inputs")
    loop, bound = bounds[0]
    mapped(ctx, f"{loop}_{TYPES[x.dtype]}", [x, bound], output)
    for loop, bound in bounds[1:]:
        ctx.map(f"{loop}_{TYPES[x.dtype]}", [ctx.values[output], bound], ctx.values[output])


@op(*FUNCTIONS, "HardSigmoid", domain="infold", infer=same_shape)
def function(ctx, node) -> None:
    unary(ctx, node)
