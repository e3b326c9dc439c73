"""The functions of the domain infold that ONNX has no operator for: what they compute, for any runtime.

Images are [N, C, ...] of any rank, weights [C]. Only operators are used that are the same in all operator sets from 13
on (ReduceMean is not; GlobalAveragePool takes the means).
"""
from __future__ import annotations

import onnx
import onnx_ir as ir

_GROUPS = """
    zero = Constant <value_ints = [0]> () rest = Constant <value_ints = [-1]> () one = Constant <value_ints = [1]> ()
    count = Constant <value_int: int = @groups> () many = Reshape(count, one)
    split = Concat <axis = 0> (zero, many, rest) grouped = Reshape(x, split)
"""
_EPSILON = "epsilon = Constant <value_float: float = @epsilon> ()"
_ROW = """
    flat = Flatten <axis: int = @axis> (x) single = Constant <value_ints = [0, 1, -1]> () row = Reshape(flat, single)
    shape = Shape(x)
"""
_DEVIATION = _EPSILON + """
    mean = GlobalAveragePool({0}) centred = Sub({0}, mean) square = Mul(centred, centred)
    variance = GlobalAveragePool(square) spread = Add(variance, epsilon) deviation = Sqrt(spread)
"""
_PIXELS = """
    pixels = Constant <value_ints = [0, 0, -1]> () channel = Constant <value_ints = [-1, 1]> ()
    image = Reshape(x, pixels) shape = Shape(x) {}
"""
_AFFINE = """
    g = Reshape(gamma, channel) b = Reshape(beta, channel) scaled = Mul({}, g) moved = Add(scaled, b)
    y = Reshape(moved, shape)
"""
_BY_ELEMENT = "unscaled = Reshape({}, shape) scaled = Mul(unscaled, gamma) y = Add(scaled, beta)"

BODIES = {
    # of opset 17: (x - mean) / sqrt(variance + epsilon) * gamma + beta over the axes from `axis` on
    ("LayerNormalization", ""): ("axis, epsilon", "x, gamma, beta", _ROW + _DEVIATION.format("row")
        + "normal = Div(centred, deviation)" + _BY_ELEMENT.format("normal")),
    # of opset 23: x / sqrt(mean(x^2) + epsilon) * gamma over the axes from `axis` on (arXiv 1910.07467)
    ("RMSNormalization", ""): ("axis, epsilon", "x, gamma", _ROW + _EPSILON + """
        square = Mul(row, row) power = GlobalAveragePool(square) more = Add(power, epsilon) root = Sqrt(more)
        normal = Div(row, root) unscaled = Reshape(normal, shape) y = Mul(unscaled, gamma)"""),
    # (x - mean) / (s + epsilon) * gamma + beta, s the unbiased standard deviation, over the axes from `axis` on
    ("LayerNormStd", ""): ("axis, epsilon", "x, gamma, beta", _ROW + _EPSILON + """
        mean = GlobalAveragePool(row) centred = Sub(row, mean) square = Mul(centred, centred)
        biased = GlobalAveragePool(square) sizes = Shape(row) place = Constant <value_int = 2> ()
        length = Gather(sizes, place) count = Cast <to = 1> (length) unit = Constant <value_float = 1.0> ()
        others = Sub(count, unit) bessel = Div(count, others) unbiased = Mul(biased, bessel) s = Sqrt(unbiased)
        divisor = Add(s, epsilon) normal = Div(centred, divisor)""" + _BY_ELEMENT.format("normal")),
    # GroupNormalization of opset 21: (x - mean) / sqrt(variance + epsilon) * gamma + beta (arXiv 1803.08494)
    ("GroupNorm", ""): ("groups, epsilon", "x, gamma, beta", _GROUPS + _DEVIATION.format("grouped") + _PIXELS.format("") + """
        divided = Div(centred, deviation) whole = Shape(image) normal = Reshape(divided, whole)
        """ + _AFFINE.format("normal")),
    # x / max(sqrt(sum of x^2 along `axis`), epsilon)
    ("L2Normalization", ""): ("axis, epsilon", "x", _EPSILON + """
        square = Mul(x, x) place = Constant <value_int: int = @axis> () one = Constant <value_ints = [1]> ()
        axes = Reshape(place, one) power = ReduceSum (square, axes) length = Sqrt(power) divisor = Max(length, epsilon)
        y = Div(x, divisor)"""),
    # x / sqrt(mean(x^2 of each channel) + epsilon) * gamma + beta (arXiv 1911.09737)
    ("FilterResponseNorm", ""): ("epsilon", "x, gamma, beta", _PIXELS.format("") + _EPSILON + """
        square = Mul(image, image) power = GlobalAveragePool(square) more = Add(power, epsilon) root = Sqrt(more)
        normal = Div(image, root)""" + _AFFINE.format("normal")),
    # y = x sigmoid(v x) / sqrt(var(x in each group of channels) + epsilon) * gamma + beta (arXiv 2004.02967)
    ("EvoNormS0", ""): ("groups, epsilon", "x, v, gamma, beta", _GROUPS + _DEVIATION.format("grouped") + _PIXELS.format(
        "w = Reshape(v, channel)") + """
        argument = Mul(image, w) gate = Sigmoid(argument) gated = Mul(image, gate) parted = Reshape(gated, split)
        divided = Div(parted, deviation) whole = Shape(image) normal = Reshape(divided, whole)
        """ + _AFFINE.format("normal")),
    # y = x / max(sqrt(running_var + epsilon), v x + sqrt(var(x in each channel) + epsilon)) * gamma + beta (the same)
    ("EvoNormB0", ""): ("epsilon", "x, v, gamma, beta, running_var", _PIXELS.format("w = Reshape(v, channel)")
        + _DEVIATION.format("image") + """
        r = Reshape(running_var, channel) whole = Add(r, epsilon) left = Sqrt(whole)
        weighted = Mul(image, w) right = Add(weighted, deviation) bound = Max(left, right) normal = Div(image, bound)
        """ + _AFFINE.format("normal")),
    # the same in training: the variance of each channel over the batch in the place of running_var
    ("EvoNormB0", "batch"): ("epsilon", "x, v, gamma, beta", _PIXELS.format("w = Reshape(v, channel)")
        + _DEVIATION.format("image") + """
        swapped = Transpose <perm = [1, 0, 2]> (image) row = Constant <value_ints = [0, 1, -1]> ()
        flat = Reshape(swapped, row) every = GlobalAveragePool(flat) away = Sub(flat, every) power = Mul(away, away)
        batch = GlobalAveragePool(power) column = Reshape(batch, channel) whole = Add(column, epsilon) left = Sqrt(whole)
        weighted = Mul(image, w) right = Add(weighted, deviation) bound = Max(left, right) normal = Div(image, bound)
        """ + _AFFINE.format("normal")),
}


def body(name: str, overload: str, opset: int) -> ir.Function:
    """The function `infold::name` for models of this operator set."""
    attributes, inputs, nodes = BODIES[name, overload]
    proto = onnx.parser.parse_function(f'<opset_import: ["": {opset}], domain: "infold">'
                                       f" {name} <{attributes}> ({inputs}) => (y) {{ {nodes} }}")
    proto.overload = overload
    return ir.from_proto(proto)
