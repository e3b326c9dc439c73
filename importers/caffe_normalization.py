"""Caffe's normalisations: BatchNorm, Scale and Bias, LRN, MVN, and SSD's Normalize."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from google.protobuf.message import Message

from infold.importers.caffe_graph import Site, layer


@layer("BatchNorm")
def batch_norm(site: Site) -> ir.Value:
    """(x − mean) / sqrt(variance + eps), both stored as sums and divided by the third blob; if that is 0, both are 0.

    At test time the stored statistics are used unless `use_global_stats` says no. NVIDIA's Caffe may scale and shift.
    """
    param, shape = site.layer.batch_norm_param, site.shape(site.bottom)
    if len(shape) < 2:
        site.fail(f"needs at least two axes, {site.bottom.name!r} has the shape {list(shape)}")
    channels = shape[1]
    factor = float(site.blob(2, (), "scale factor"))
    factor = 0.0 if factor == 0 else 1 / factor
    statistics = [
        site.constant(site.blob(index, (channels,), role).astype(np.float64) * factor, role)
        for index, role in enumerate(("mean", "variance"))
    ]
    gamma, beta = (
        (site.blob(3, (channels,), "scale"), site.blob(4, (channels,), "bias"))
        if param.scale_bias
        else (np.ones(channels), np.zeros(channels))
    )
    inputs = [site.bottom, site.constant(gamma, "scale"), site.constant(beta, "bias"), *statistics]
    if param.use_global_stats or not param.HasField("use_global_stats"):
        return site.node("BatchNormalization", inputs, epsilon=param.eps)
    momentum = param.moving_average_fraction if param.HasField("moving_average_fraction") else 0.999
    return site.nodes("BatchNormalization", inputs, 3, epsilon=param.eps, training_mode=1, momentum=momentum)[0]


@layer("Scale")
def scale(site: Site) -> ir.Value:
    """x times the layer's weights or the second bottom, along `num_axes` axes from `axis` on; perhaps plus a bias."""
    shape, param = site.shape(site.first), site.layer.scale_param
    factor, own, broadcast = _factor(site, param, shape, "scale")
    top = site.node("Mul", [site.first, factor])
    if not param.bias_term:
        return top
    bias = site.blob(2 - len(site.bottoms), own, "bias").reshape(broadcast)
    return site.node("Add", [top, site.constant(bias, "bias")], "bias")


@layer("Bias")
def bias(site: Site) -> ir.Value:
    """x plus the layer's weights or the second bottom, along `num_axes` axes from `axis` on."""
    return site.node("Add", [site.first, _factor(site, site.layer.bias_param, site.shape(site.first), "bias")[0]])


def _factor(site: Site, param: Message, shape: tuple[int, ...], role: str) -> tuple[ir.Value, tuple, tuple]:
    """Return the second operand, ready to broadcast, its own shape, and that shape with the ones that align it."""
    axis, rank = site.axis(param.axis, len(shape)), len(shape)
    if len(site.bottoms) == 1:
        if param.num_axes < -1 or param.num_axes > rank - axis:
            site.fail(f"num_axes {param.num_axes} from axis {axis} on exceeds the shape {list(shape)}")
        own = shape[axis:] if param.num_axes == -1 else shape[axis : axis + param.num_axes]
    else:
        own = site.shape(site.take(2)[1])
        axis = axis if own else 0
        if own != shape[axis : axis + len(own)]:
            site.fail(f"the second blob has the shape {list(own)}, needs that of the first, {list(shape)}, from axis {axis} on")
    broadcast = (*own, *[1] * (rank - axis - len(own))) if own else ()
    if len(site.bottoms) == 1:
        value = site.constant(site.blob(0, own, role).reshape(broadcast), role)
    else:
        value = site.bottoms[1] if own == broadcast else site.reshape(site.bottoms[1], broadcast, "broadcast")
    return value, own, broadcast


@layer("LRN")
def lrn(site: Site) -> ir.Value:
    """x / (k + alpha·mean of squares)^beta over neighbouring channels, or over a square of the image (where k is 1)."""
    param, size = site.layer.lrn_param, site.layer.lrn_param.local_size
    site.image(site.bottom)
    if size % 2 == 0:
        site.fail(f"local_size {size} must be odd")
    if param.norm_region == 0:
        return site.node("LRN", [site.bottom], size=size, alpha=param.alpha, beta=param.beta, bias=param.k)
    x, half = site.bottom, (size - 1) // 2
    square = site.node("Mul", [x, x], "square")
    mean = site.node("AveragePool", [square], "pool", kernel_shape=[size] * 2, pads=[half] * 4, count_include_pad=1)
    scaled = site.node("Mul", [mean, site.constant(param.alpha, "alpha")], "scale")
    base = site.node("Add", [scaled, site.constant(1.0, "one")], "shift")
    return site.node("Mul", [x, site.node("Pow", [base, site.constant(-param.beta, "exponent")], "power")])


@layer("MVN")
def mvn(site: Site) -> ir.Value:
    """(x − mean) / (standard deviation + eps) of each sample's channels, or of whole samples."""
    param, shape = site.layer.mvn_param, site.shape(site.bottom)
    first = 1 if param.across_channels else 2
    if len(shape) <= first:
        site.fail(f"needs more than {first} axes, {site.bottom.name!r} has the shape {list(shape)}")
    axes = site.constant(list(range(first, len(shape))), "axes")
    mean = site.node("ReduceMean", [site.bottom, axes], "mean", keepdims=1)
    centred = site.node("Sub", [site.bottom, mean], "" if not param.normalize_variance else "centre")
    if not param.normalize_variance:
        return centred
    square = site.node("Mul", [centred, centred], "square")
    variance = site.node("ReduceMean", [square, axes], "variance", keepdims=1)
    deviation = site.node("Sqrt", [variance], "sqrt")
    divisor = site.node("Add", [deviation, site.constant(param.eps, "eps")], "divisor")
    return site.node("Div", [centred, divisor])


@layer("Normalize")
def normalize(site: Site) -> ir.Value:
    """x / sqrt(sum of squares + eps) of a sample, or of a pixel's channels; times a scale for all or each channel."""
    param, shape = site.layer.norm_param, site.shape(site.bottom)
    if len(shape) < 2:
        site.fail(f"needs at least two axes, {site.bottom.name!r} has the shape {list(shape)}")
    axes = range(1, len(shape)) if param.across_spatial else [1]
    square = site.node("Mul", [site.bottom, site.bottom], "square")
    total = site.node("ReduceSum", [square, site.constant(list(axes), "axes")], "sum", keepdims=1)
    shifted = site.node("Add", [total, site.constant(param.eps, "eps")], "eps")
    unit = site.node("Div", [site.bottom, site.node("Sqrt", [shifted], "norm")], "divide")
    weight = site.blob(0, () if param.channel_shared else (shape[1],), "scale")
    weight = weight.reshape([-1, *[1] * (len(shape) - 2)])
    return site.node("Mul", [unit, site.constant(weight, "scale")])
