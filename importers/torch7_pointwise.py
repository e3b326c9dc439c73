"""Torch7 modules that work element by element, with or without weights, on one tensor or on a table."""

from __future__ import annotations

from functools import reduce

import numpy as np

from infold.importers.torch7_containers import axis
from infold.importers.torch7_graph import Graph, Nested, converts, static
from infold.importers.torch7_module import Module

# Modules that do nothing at inference.
IDENTITIES = (
    "nn.Identity",
    "nn.Contiguous",
    "nn.Copy",
    "nn.L1Penalty",
    "nn.GradientReversal",
    "nn.WhiteNoise",
    "nn.ZeroGrad",
    "cudnn.Dropout",
)
# Modules that are one ONNX operator without attributes.
UNARY = {
    "nn.Sigmoid": "Sigmoid",
    "nn.Tanh": "Tanh",
    "nn.ReLU": "Relu",
    "nn.Abs": "Abs",
    "nn.Sqrt": "Sqrt",
    "nn.Exp": "Exp",
    "nn.Log": "Log",
    "nn.SoftSign": "Softsign",
    "cudnn.ReLU": "Relu",
    "cudnn.Sigmoid": "Sigmoid",
    "cudnn.Tanh": "Tanh",
}
DROPOUTS = ("nn.Dropout", "nn.SpatialDropout", "nn.VolumetricDropout")
_TABLE = {
    "nn.CAddTable": "Add",
    "nn.CMulTable": "Mul",
    "nn.CSubTable": "Sub",
    "nn.CDivTable": "Div",
    "nn.CMaxTable": "Max",
    "nn.CMinTable": "Min",
}


@converts(*IDENTITIES)
def _identity(graph: Graph, module: Module, x: Nested) -> Nested:
    return x


@converts(*UNARY)
def _unary(graph: Graph, module: Module, x: Nested) -> Nested:
    return graph.add(module, UNARY[module.name], graph.tensor(module, x))


@converts(*_TABLE)
def _table(graph: Graph, module: Module, x: Nested) -> Nested:
    values, op = graph.tensors(module, x), _TABLE[module.name]
    if op in ("Sub", "Div") and len(values) != 2:
        raise module.invalid(f"a table of {len(values)}; two tensors expected")
    return reduce(lambda left, right: graph.add(module, op, left, right), values)


@converts(*DROPOUTS)
def _dropout(graph: Graph, module: Module, x: Nested) -> Nested:
    """Nothing, or times 1 - p: early nn.Dropout (not v2) scaled at inference, and nn.SpatialDropout always does."""
    if (module.name == "nn.Dropout" and module.flag("v2")) or (p := module.number("p", 0.5)) == 0:
        return x
    return graph.add(module, "Mul", graph.tensor(module, x), graph.scalar(1 - p))


@converts("nn.ReLU6")
def _relu6(graph: Graph, module: Module, x: Nested) -> Nested:
    return graph.add(module, "Clip", graph.tensor(module, x), graph.scalar(0), graph.scalar(6))


@converts("cudnn.ClippedReLU")
def _clipped_relu(graph: Graph, module: Module, x: Nested) -> Nested:
    return graph.add(module, "Clip", graph.tensor(module, x), graph.scalar(0), graph.scalar(module.number("ceiling")))


@converts("nn.HardTanh", "nn.Clamp")
def _hard_tanh(graph: Graph, module: Module, x: Nested) -> Nested:
    bounds = graph.scalar(module.number("min_val", -1)), graph.scalar(module.number("max_val", 1))
    return graph.add(module, "Clip", graph.tensor(module, x), *bounds)


@converts("nn.LeakyReLU")
def _leaky_relu(graph: Graph, module: Module, x: Nested) -> Nested:
    return graph.add(module, "LeakyRelu", graph.tensor(module, x), alpha=module.number("negval", 0.01))


@converts("nn.RReLU")
def _rrelu(graph: Graph, module: Module, x: Nested) -> Nested:
    """At inference the slope is the mean of its bounds."""
    slope = (module.number("lower", 1 / 8) + module.number("upper", 1 / 3)) / 2
    return graph.add(module, "LeakyRelu", graph.tensor(module, x), alpha=slope)


@converts("nn.PReLU")
def _prelu(graph: Graph, module: Module, x: Nested) -> Nested:
    x, weight = graph.tensor(module, x), module.array("weight")
    if weight.size > 1:
        graph.check_dim(module, x, 1, weight.size)
    slope = weight.reshape(-1, *[1] * (len(x.shape) - 2)) if weight.size > 1 else weight.reshape(1)
    return graph.add(module, "PRelu", x, graph.weight(module, "weight", slope))


@converts("nn.ELU")
def _elu(graph: Graph, module: Module, x: Nested) -> Nested:
    return graph.add(module, "Elu", graph.tensor(module, x), alpha=module.number("alpha", 1))


@converts("nn.SoftPlus")
def _softplus(graph: Graph, module: Module, x: Nested) -> Nested:
    """log(1 + exp(beta x)) / beta; Torch's switch to x for large beta x changes nothing in float32."""
    x, beta = graph.tensor(module, x), module.number("beta", 1)
    if beta == 1:
        return graph.add(module, "Softplus", x)
    scale = graph.scalar(beta)
    return graph.add(module, "Div", graph.add(module, "Softplus", graph.add(module, "Mul", x, scale)), scale)


@converts("nn.LogSigmoid")
def _log_sigmoid(graph: Graph, module: Module, x: Nested) -> Nested:
    negated = graph.add(module, "Neg", graph.tensor(module, x))
    return graph.add(module, "Neg", graph.add(module, "Softplus", negated))


@converts("nn.TanhShrink")
def _tanh_shrink(graph: Graph, module: Module, x: Nested) -> Nested:
    x = graph.tensor(module, x)
    return graph.add(module, "Sub", x, graph.add(module, "Tanh", x))


@converts("nn.HardShrink", "nn.SoftShrink")
def _shrink(graph: Graph, module: Module, x: Nested) -> Nested:
    width = module.number("lambda", 0.5)
    return graph.add(module, "Shrink", graph.tensor(module, x), lambd=width, bias=width if "Soft" in module.name else 0)


@converts("nn.Threshold")
def _threshold(graph: Graph, module: Module, x: Nested) -> Nested:
    """x where it is above the threshold, else a value."""
    x, threshold, value = graph.tensor(module, x), module.number("threshold", 0), module.number("val", 0)
    if threshold == value:
        return graph.add(module, "Relu", x) if value == 0 else graph.add(module, "Max", x, graph.scalar(value))
    above = graph.add(module, "Greater", x, graph.scalar(threshold))
    return graph.add(module, "Where", above, x, graph.scalar(value))


@converts("nn.Square")
def _square(graph: Graph, module: Module, x: Nested) -> Nested:
    x = graph.tensor(module, x)
    return graph.add(module, "Mul", x, x)


@converts("nn.Power")
def _power(graph: Graph, module: Module, x: Nested) -> Nested:
    return graph.add(module, "Pow", graph.tensor(module, x), graph.scalar(module.number("pow")))


@converts("nn.MulConstant")
def _mul_constant(graph: Graph, module: Module, x: Nested) -> Nested:
    return graph.add(module, "Mul", graph.tensor(module, x), graph.scalar(module.number("constant_scalar")))


@converts("nn.AddConstant")
def _add_constant(graph: Graph, module: Module, x: Nested) -> Nested:
    x, constant = graph.tensor(module, x), module.fields.get("constant_scalar")
    if isinstance(constant, np.ndarray):
        return graph.add(module, "Add", x, graph.weight(module, "constant", module.array("constant_scalar")))
    return graph.add(module, "Add", x, graph.scalar(module.number("constant_scalar")))


@converts("nn.Mul", "nn.CMul")
def _mul(graph: Graph, module: Module, x: Nested) -> Nested:
    return _with_weight(graph, module, x, "Mul", "weight")


@converts("nn.Add", "nn.CAdd")
def _add(graph: Graph, module: Module, x: Nested) -> Nested:
    return _with_weight(graph, module, x, "Add", "bias")


def _with_weight(graph: Graph, module: Module, x: Nested, op: str, field: str) -> Nested:
    """A weight of one element; of the input's rank, to be broadcast; or with an element for each of a sample's."""
    x, weight = graph.tensor(module, x), module.array(field)
    shape = graph.shape(x)
    if weight.size == 1:
        weight = weight.reshape(1)
    elif weight.ndim != len(shape):
        inside = static(shape[1:])
        if inside is not None and inside != weight.size:
            raise module.invalid(f"field {field!r} of shape {weight.shape} for an input of shape {x.shape}")
        if inside is not None:
            weight = weight.reshape(shape[1:])
        elif weight.ndim != len(shape) - 1:
            raise module.unsupported(
                f"field {field!r} of shape {weight.shape} for an input of unknown size {x.shape}; give the input's shape"
            )
    return graph.add(module, op, x, graph.weight(module, field, weight))


@converts(
    "nn.SoftMax",
    "nn.LogSoftMax",
    "nn.SoftMin",
    "nn.SpatialSoftMax",
    "nn.SpatialLogSoftMax",
    "cudnn.SoftMax",
    "cudnn.LogSoftMax",
    "cudnn.SpatialSoftMax",
    "cudnn.SpatialLogSoftMax",
    "cudnn.VolumetricSoftMax",
    "cudnn.VolumetricLogSoftMax",
)
def _softmax(graph: Graph, module: Module, x: Nested) -> Nested:
    """Over the channels; three dimensions are an image without a batch."""
    x = graph.tensor(module, x)
    along = 0 if len(x.shape) in (1, 3) else 1
    if module.name == "nn.SoftMin":
        x = graph.add(module, "Neg", x)
    return graph.add(module, "LogSoftmax" if "Log" in module.name else "Softmax", x, axis=along)


@converts("nn.Sum", "nn.Mean", "nn.Max", "nn.Min")
def _reduce(graph: Graph, module: Module, x: Nested) -> Nested:
    x = graph.tensor(module, x)
    op = module.name.removeprefix("nn.")
    mean = op == "Mean" or module.flag("sizeAverage")
    along = graph.integers(axis(module, "dimension", x, 1))
    keep = int(len(x.shape) == 1 or (op in ("Sum", "Mean") and not module.flag("squeeze", True)))
    return graph.add(module, "ReduceMean" if mean else f"Reduce{op}", x, along, keepdims=keep)
