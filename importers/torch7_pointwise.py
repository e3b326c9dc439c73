"""Torch7 modules that work element by element, with or without weights, on one tensor or on a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce

import numpy as np

from infold.importers.torch7_graph import Nested, Site, converts, static

# Modules that do nothing at inference.
IDENTITIES = ("nn.Identity", "nn.Contiguous", "nn.Copy", "nn.L1Penalty", "nn.GradientReversal", "nn.WhiteNoise", "nn.ZeroGrad",
              "cudnn.Dropout")
# Modules that are one ONNX operator without attributes.
UNARY = {"nn.Sigmoid": "Sigmoid", "nn.Tanh": "Tanh", "nn.ReLU": "Relu", "nn.Abs": "Abs", "nn.Sqrt": "Sqrt", "nn.Exp": "Exp",
         "nn.Log": "Log", "nn.SoftSign": "Softsign", "cudnn.ReLU": "Relu", "cudnn.Sigmoid": "Sigmoid", "cudnn.Tanh": "Tanh"}
DROPOUTS = ("nn.Dropout", "nn.SpatialDropout", "nn.VolumetricDropout")
_TABLE = {"nn.CAddTable": "Add", "nn.CMulTable": "Mul", "nn.CSubTable": "Sub", "nn.CDivTable": "Div", "nn.CMaxTable": "Max",
          "nn.CMinTable": "Min"}
# Modules that are one ONNX operator with numbers: the operator, and what follows the tensor, of the module.
_WITH_NUMBERS: dict[str, tuple[str, Callable[[Site], Iterable[float]]]] = {
    "nn.ReLU6": ("Clip", lambda site: (0, 6)),
    "cudnn.ClippedReLU": ("Clip", lambda site: (0, site.number("ceiling"))),
    "nn.HardTanh": ("Clip", lambda site: (site.number("min_val", -1), site.number("max_val", 1))),
    "nn.Clamp": ("Clip", lambda site: (site.number("min_val", -1), site.number("max_val", 1))),
    "nn.Power": ("Pow", lambda site: (site.number("pow"),)),
    "nn.MulConstant": ("Mul", lambda site: (site.number("constant_scalar"),)),
}
# And with attributes. The slope of an RReLU is at inference the mean of its bounds.
_WITH_ATTRIBUTES: dict[str, tuple[str, Callable[[Site], dict[str, float]]]] = {
    "nn.LeakyReLU": ("LeakyRelu", lambda site: {"alpha": site.number("negval", 0.01)}),
    "nn.RReLU": ("LeakyRelu", lambda site: {"alpha": (site.number("lower", 1 / 8) + site.number("upper", 1 / 3)) / 2}),
    "nn.ELU": ("Elu", lambda site: {"alpha": site.number("alpha", 1)}),
    "nn.HardShrink": ("Shrink", lambda site: {"lambd": site.number("lambda", 0.5)}),
    "nn.SoftShrink": ("Shrink", lambda site: dict.fromkeys(("lambd", "bias"), site.number("lambda", 0.5))),
}


@converts(*IDENTITIES)
def _identity(site: Site) -> Nested:
    return site.given


@converts(*UNARY)
def _unary(site: Site) -> Nested:
    return site.add(UNARY[site.name], site.tensor())


@converts(*_WITH_NUMBERS)
def _with_numbers(site: Site) -> Nested:
    op, numbers = _WITH_NUMBERS[site.name]
    return site.add(op, site.tensor(), *map(site.scalar, numbers(site)))


@converts(*_WITH_ATTRIBUTES)
def _with_attributes(site: Site) -> Nested:
    op, attributes = _WITH_ATTRIBUTES[site.name]
    return site.add(op, site.tensor(), **attributes(site))


@converts(*_TABLE)
def _table(site: Site) -> Nested:
    values, op = site.tensors(site.given), _TABLE[site.name]
    if op in ("Sub", "Div") and len(values) != 2:
        raise site.invalid(f"a table of {len(values)}; two tensors expected")
    return reduce(lambda left, right: site.add(op, left, right), values)


@converts(*DROPOUTS)
def _dropout(site: Site) -> Nested:
    """Nothing, or times 1 - p: early nn.Dropout (not v2) scaled at inference, and nn.SpatialDropout always does."""
    if (site.name == "nn.Dropout" and site.flag("v2")) or (p := site.number("p", 0.5)) == 0:
        return site.given
    return site.add("Mul", site.tensor(), site.scalar(1 - p))


@converts("nn.PReLU")
def _prelu(site: Site) -> Nested:
    x, weight = site.tensor(), site.array("weight")
    if weight.size > 1:
        site.check_dim(x, 1, weight.size)
    slope = weight.reshape(-1, *[1] * (len(x.shape) - 2)) if weight.size > 1 else weight.reshape(1)
    return site.add("PRelu", x, site.weight("weight", slope))


@converts("nn.SoftPlus")
def _softplus(site: Site) -> Nested:
    """log(1 + exp(beta x)) / beta; Torch's switch to x for large beta x changes nothing in float32."""
    x, beta = site.tensor(), site.number("beta", 1)
    if beta == 1:
        return site.add("Softplus", x)
    scale = site.scalar(beta)
    return site.add("Div", site.add("Softplus", site.add("Mul", x, scale)), scale)


@converts("nn.LogSigmoid")
def _log_sigmoid(site: Site) -> Nested:
    negated = site.add("Neg", site.tensor())
    return site.add("Neg", site.add("Softplus", negated))


@converts("nn.TanhShrink")
def _tanh_shrink(site: Site) -> Nested:
    x = site.tensor()
    return site.add("Sub", x, site.add("Tanh", x))


@converts("nn.Threshold")
def _threshold(site: Site) -> Nested:
    """x where it is above the threshold, else a value."""
    x, threshold, value = site.tensor(), site.number("threshold", 0), site.number("val", 0)
    if threshold == value:
        return site.add("Relu", x) if value == 0 else site.add("Max", x, site.scalar(value))
    above = site.add("Greater", x, site.scalar(threshold))
    return site.add("Where", above, x, site.scalar(value))


@converts("nn.Square")
def _square(site: Site) -> Nested:
    x = site.tensor()
    return site.add("Mul", x, x)


@converts("nn.AddConstant")
def _add_constant(site: Site) -> Nested:
    x, constant = site.tensor(), site.fields.get("constant_scalar")
    if isinstance(constant, np.ndarray):
        return site.add("Add", x, site.weight("constant", site.array("constant_scalar")))
    return site.add("Add", x, site.scalar(site.number("constant_scalar")))


@converts("nn.Mul", "nn.CMul", "nn.Add", "nn.CAdd")
def _with_weight(site: Site) -> Nested:
    """A weight of one element; of the input's rank, to be broadcast; or with an element for each of a sample's."""
    op, field = ("Mul", "weight") if "Mul" in site.name else ("Add", "bias")
    x, weight = site.tensor(), site.array(field)
    shape = site.shape(x)
    if weight.size == 1:
        weight = weight.reshape(1)
    elif weight.ndim != len(shape):
        inside = static(shape[1:])
        if inside is not None and inside != weight.size:
            raise site.invalid(f"field {field!r} of shape {weight.shape} for an input of shape {x.shape}")
        if inside is not None:
            weight = weight.reshape(shape[1:])
        elif weight.ndim != len(shape) - 1:
            raise site.unsupported(
                f"field {field!r} of shape {weight.shape} for an input of unknown size {x.shape}; give the input's shape"
            )
    return site.add(op, x, site.weight(field, weight))


@converts("nn.SoftMin", *(f"{package}.{kind}{log}SoftMax" for package in ("nn", "cudnn") for log in ("", "Log")
                          for kind in ("", "Spatial", "Volumetric") if (package, kind) != ("nn", "Volumetric")))
def _softmax(site: Site) -> Nested:
    """Over the channels; three dimensions are an image without a batch."""
    x = site.tensor()
    along = 0 if len(x.shape) in (1, 3) else 1
    if site.name == "nn.SoftMin":
        x = site.add("Neg", x)
    return site.add("LogSoftmax" if "Log" in site.name else "Softmax", x, axis=along)


@converts("nn.Sum", "nn.Mean", "nn.Max", "nn.Min")
def _reduce(site: Site) -> Nested:
    x = site.tensor()
    op = site.name.removeprefix("nn.")
    mean = op == "Mean" or site.flag("sizeAverage")
    along = site.integers(site.axis("dimension", x, 1))
    keep = int(len(x.shape) == 1 or (op in ("Sum", "Mean") and not site.flag("squeeze", True)))
    return site.add("ReduceMean" if mean else f"Reduce{op}", x, along, keepdims=keep)
