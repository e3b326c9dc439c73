"""Caffe's elementwise layers: activations, Power, Exp, Log, Threshold, Clip and Eltwise."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from infold.importers.caffe_graph import Site, layer

_UNARY = {"Sigmoid": "Sigmoid", "TanH": "Tanh", "AbsVal": "Abs", "BNLL": "Softplus", "Dropout": "Dropout"}


@layer(*_UNARY)
def unary(site: Site) -> ir.Value:
    """Layers that are one ONNX operator without attributes; Dropout does nothing at test time."""
    return site.node(_UNARY[site.layer.type], [site.bottom])


@layer("ReLU")
def relu(site: Site) -> ir.Value:
    """max(x, 0) + slope·min(x, 0)."""
    slope = site.layer.relu_param.negative_slope
    return site.node("LeakyRelu", [site.bottom], alpha=slope) if slope else site.node("Relu", [site.bottom])


@layer("ReLU6")
def relu6(site: Site) -> ir.Value:
    """min(max(x, 0), 6)."""
    return _clip(site, 0.0, 6.0)


@layer("Clip")
def clip(site: Site) -> ir.Value:
    """min(max(x, min), max)."""
    return _clip(site, site.layer.clip_param.min, site.layer.clip_param.max)


def _clip(site: Site, low: float, high: float) -> ir.Value:
    return site.node("Clip", [site.bottom, site.constant(low, "min"), site.constant(high, "max")])


@layer("PReLU")
def prelu(site: Site) -> ir.Value:
    """max(x, 0) + slope·min(x, 0), a slope for each channel or one for all."""
    shape = site.shape(site.bottom)
    shared = site.layer.prelu_param.channel_shared or len(shape) < 2
    slope = site.blob(0, () if shared else (shape[1],), "slope")
    slope = slope if shared else slope.reshape(-1, *[1] * (len(shape) - 2))
    return site.node("PRelu", [site.bottom, site.constant(slope, "slope")])


@layer("ELU")
def elu(site: Site) -> ir.Value:
    """x, or alpha·(exp(x) − 1) below zero."""
    return site.node("Elu", [site.bottom], alpha=site.layer.elu_param.alpha)


@layer("Swish")
def swish(site: Site) -> ir.Value:
    """x·sigmoid(beta·x)."""
    beta, value = site.layer.swish_param.beta, site.bottom
    if beta != 1:
        value = site.node("Mul", [value, site.constant(beta, "beta")], "scale")
    return site.node("Mul", [site.bottom, site.node("Sigmoid", [value], "sigmoid")])


@layer("Power")
def power(site: Site) -> ir.Value:
    """(shift + scale·x)^power."""
    param = site.layer.power_param
    value = _affine(site, param.scale, param.shift)
    if param.power != 1:
        return site.node("Pow", [value, site.constant(param.power, "power")])
    return value if value is not site.bottom else site.node("Identity", [value])


@layer("Exp")
def exp(site: Site) -> ir.Value:
    """base^(shift + scale·x); base −1 stands for e."""
    param = site.layer.exp_param
    factor = _log_base(site, param.base)
    return site.node("Exp", [_affine(site, param.scale * factor, param.shift * factor)])


@layer("Log")
def log(site: Site) -> ir.Value:
    """log of shift + scale·x, to the base given; base −1 stands for e."""
    param = site.layer.log_param
    factor = _log_base(site, param.base)
    if factor == 0:
        site.fail("the base of a logarithm cannot be 1")
    top = site.node("Log", [_affine(site, param.scale, param.shift)], "" if factor == 1 else "log")
    return top if factor == 1 else site.node("Mul", [top, site.constant(1 / factor, "factor")])


@layer("Threshold")
def threshold(site: Site) -> ir.Value:
    """1 where x exceeds the threshold, 0 elsewhere."""
    limit = site.constant(site.layer.threshold_param.threshold, "threshold")
    return site.node("Cast", [site.node("Greater", [site.bottom, limit], "greater")], to=ir.DataType.FLOAT)


@layer("Eltwise")
def eltwise(site: Site) -> ir.Value:
    """Product, sum with coefficients, or maximum of blobs of one shape."""
    param, values = site.layer.eltwise_param, list(site.bottoms)
    if len(values) < 2:
        site.fail(f"has {len(values)} bottoms, needs at least 2")
    shape = site.shape(values[0])
    for value in values[1:]:
        if site.shape(value) != shape:
            site.fail(f"its bottoms differ in shape: {list(shape)} and {list(site.shape(value))} ({value.name!r})")
    if param.operation == 2:
        return site.node("Max", values)
    coefficients = list(param.coeff)
    if coefficients and (param.operation != 1 or len(coefficients) != len(values)):
        site.fail(f"{len(coefficients)} coefficients for {len(values)} bottoms; only a sum has them, one for each")
    for index, coefficient in enumerate(coefficients):
        if coefficient != 1:
            values[index] = site.node("Mul", [values[index], site.constant(coefficient, f"coeff{index}")], f"coeff{index}")
    op, top = "Mul" if param.operation == 0 else "Add", values[0]
    for index, value in enumerate(values[1:], 2):
        top = site.node(op, [top, value], "" if index == len(values) else f"part{index}")
    return top


@layer("Axpy")
def axpy(site: Site) -> ir.Value:
    """a·x + y with a factor a for each channel, as squeeze-and-excitation nets have it; a is (N, C) or (N, C, 1, 1)."""
    a, x, y = site.take(3)
    n, c, *_ = shape = site.image(x)
    if math.prod(site.shape(a)) != n * c or site.shape(a)[:2] != (n, c) or site.shape(y) != shape:
        site.fail(f"shapes {list(site.shape(a))}, {list(shape)}, {list(site.shape(y))} are not (N, C), (N, C, H, W), (N, C, H, W)")
    if len(site.shape(a)) != 4:
        a = site.reshape(a, (n, c, 1, 1), "broadcast")
    return site.node("Add", [site.node("Mul", [x, a], "scale"), y])


def _affine(site: Site, scale: float, shift: float) -> ir.Value:
    """Return shift + scale·x; the bottom itself if that changes nothing."""
    value = site.bottom
    if np.float32(scale) != 1:
        value = site.node("Mul", [value, site.constant(scale, "scale")], "scale")
    if np.float32(shift) != 0:
        value = site.node("Add", [value, site.constant(shift, "shift")], "shift")
    return value


def _log_base(site: Site, base: float) -> float:
    if base != -1 and not 0 < base < math.inf:
        site.fail(f"the base {base} must be positive, or -1 for e")
    return 1.0 if base == -1 else math.log(base)
