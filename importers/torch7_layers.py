"""Torch7 layers with weights or windows: convolution, linear, normalisation, pooling."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from infold.importers.torch7_graph import Nested, Site, converts

# The letters of a module's fields (kW, dH, padT, ...), in the order of ONNX's spatial axes.
_LETTERS = {"Temporal": "W", "Spatial": "HW", "Volumetric": "THW"}


def _spatial(site: Site) -> str:
    kind = site.name.partition(".")[2]
    return next(value for prefix, value in _LETTERS.items() if kind.startswith(prefix))


def _each(site: Site, prefix: str, default: object = None, *, least: int) -> list[int]:
    arguments = () if default is None else (default,)
    return [site.integer(prefix + letter, *arguments, least=least) for letter in _spatial(site)]


def _padding(site: Site) -> list[int]:
    return _each(site, "pad", site.integer("padding", 0, least=0), least=0)


@converts("nn.SpatialConvolution", "nn.SpatialConvolutionMM", "nn.SpatialDilatedConvolution", "nn.VolumetricConvolution",
          "nn.VolumetricConvolutionMM", "nn.VolumetricDilatedConvolution", "cudnn.SpatialConvolution",
          "cudnn.VolumetricConvolution", "cudnn.SpatialDilatedConvolution", "cudnn.VolumetricDilatedConvolution",
          "inn.SpatialConvolution", "nn.SpatialFullConvolution", "nn.VolumetricFullConvolution", "cudnn.SpatialFullConvolution",
          "cudnn.VolumetricFullConvolution")
def _convolution(site: Site) -> Nested:
    """A convolution, or a full (transposed) one."""
    full, kernel = "Full" in site.name, _each(site, "k", least=1)
    x = site.tensor(len(kernel) + 2)
    channels, out = site.integer("nInputPlane", least=1), site.integer("nOutputPlane", least=1)
    groups = site.integer("groups", 1, least=1)
    if channels % groups or out % groups:
        raise site.invalid(f"{groups} groups of {channels} input and {out} output planes")
    site.check_dim(x, 1, channels)
    planes = (channels, out // groups) if full else (out, channels // groups)
    weight = site.array("weight", (*planes, *kernel))
    own = {"output_padding": _each(site, "adj", 0, least=0)} if full else {"dilations": _each(site, "dilation", 1, least=1)}
    operator, pads = "ConvTranspose" if full else "Conv", _padding(site) * 2
    return _filters(site, operator, x, weight, out, pads=pads, **own, group=groups)


@converts("nn.SpatialConvolutionMap")
def _convolution_map(site: Site) -> Nested:
    """A convolution in which each output plane reads some input planes: a dense one with zeros."""
    x = site.tensor(4)
    channels, out = site.integer("nInputPlane", least=1), site.integer("nOutputPlane", least=1)
    kernel, taps, pairs = _each(site, "k", least=1), site.array("weight"), site.array("connTable")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or taps.shape != (len(pairs), *kernel):
        raise site.invalid(f"weight {taps.shape} and connection table {pairs.shape} do not fit kernel {kernel}")
    if channels * out > 16 * len(pairs) + 4096:
        raise site.unsupported(f"only {len(pairs)} of {channels}x{out} planes are connected")
    if pairs.min() < 1 or (pairs.max(axis=0) > (channels, out)).any():
        raise site.invalid("the connection table names planes that do not exist")
    site.check_dim(x, 1, channels)
    weight = np.zeros((out, channels, *kernel))
    source, target = pairs.astype(np.int64).T - 1
    np.add.at(weight, (target, source), taps)
    return _filters(site, "Conv", x, weight, out)


@converts("nn.TemporalConvolution", "cudnn.TemporalConvolution")
def _temporal_convolution(site: Site) -> Nested:
    """Frames come first here: (batch, time, channels)."""
    x = site.tensor(3)
    channels, out = site.integer("inputFrameSize", least=1), site.integer("outputFrameSize", least=1)
    site.check_dim(x, 2, channels)
    [width] = _each(site, "k", least=1)
    weight = site.array("weight", (out, width, channels)).transpose(0, 2, 1)
    rows = site.add("Transpose", x, perm=[0, 2, 1])
    rows = _filters(site, "Conv", rows, weight, out, pads=[site.integer("padH", 0, least=0)] * 2)
    return site.add("Transpose", rows, perm=[0, 2, 1])


@converts("nn.SpatialSubSampling")
def _subsampling(site: Site) -> Nested:
    """One weight and one bias for each plane, times the sum over a window."""
    x, channels, kernel = (site.tensor(4), site.integer("nInputPlane", least=1), _each(site, "k", least=1))
    site.check_dim(x, 1, channels)
    if math.prod(kernel) > 1 << 16:
        raise site.unsupported(f"a window of {kernel}")
    weight = np.broadcast_to(site.array("weight", (channels, 1, 1, 1)), (channels, 1, *kernel))
    return _filters(site, "Conv", x, weight, channels, group=channels)


def _filters(site: Site, operator: str, x: ir.Value, weight: np.ndarray, out: int, **attributes: object) -> ir.Value:
    """The node of a (transposed) convolution with the module's strides and bias; the weight's last axes are the kernel."""
    return site.add(operator, x, site.weight("weight", weight), *_bias(site, out), kernel_shape=weight.shape[2:],
                    strides=_each(site, "d", 1, least=1), **attributes)


@converts("nn.Linear", "nn.LinearNoBias")
def _linear(site: Site) -> Nested:
    x, weight = site.tensor(2), site.array("weight")
    if weight.ndim != 2:
        raise site.invalid(f"weight of shape {weight.shape}; outputs x inputs expected")
    site.check_dim(x, 1, weight.shape[1])
    return site.add("Gemm", x, site.weight("weight", weight), *_bias(site, len(weight)), transB=1)


def _bias(site: Site, count: int) -> list[ir.Value]:
    return [site.weight("bias", site.array("bias", (count,)))] if site.has("bias") else []


@converts("nn.BatchNormalization", "nn.SpatialBatchNormalization", "nn.VolumetricBatchNormalization", "cudnn.BatchNormalization",
          "cudnn.SpatialBatchNormalization", "cudnn.VolumetricBatchNormalization")
def _batch_norm(site: Site) -> Nested:
    """Early versions stored running_std = 1 / sqrt(variance + eps)."""
    kind = site.name.partition(".")[2]
    x = site.tensor({"S": 4, "V": 5, "B": 2}[kind[0]])
    eps = site.number("eps", 1e-5)
    if eps < 0:
        raise site.invalid(f"eps {eps}")
    mean = site.array("running_mean").reshape(-1)
    count = mean.size
    site.check_dim(x, 1, count)
    if site.has("running_var"):
        variance = site.array("running_var", (count,))
    else:
        with np.errstate(all="ignore"):
            variance = np.asarray(site.array("running_std", (count,)), np.float64) ** -2 - eps
    scale = site.array("weight", (count,)) if site.has("weight") else np.ones(count)
    shift = site.array("bias", (count,)) if site.has("bias") else np.zeros(count)
    named = {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance}
    return site.add("BatchNormalization", x, *(site.weight(*item) for item in named.items()), epsilon=eps)


@converts("nn.InstanceNormalization")
def _instance_norm(site: Site) -> Nested:
    x, count = site.tensor(4), site.integer("nOutput", least=1)
    site.check_dim(x, 1, count)
    affine = [site.weight(field, site.array(field, (count,))) for field in ("weight", "bias")]
    return site.add("InstanceNormalization", x, *affine, epsilon=site.number("eps", 1e-5))


@converts("inn.SpatialConstAffine")
def _const_affine(site: Site) -> Nested:
    x, scale = site.tensor(4), site.array("a")
    shape = (1, scale.size, 1, 1)
    scaled = site.add("Mul", x, site.weight("a", site.array("a", shape)))
    return site.add("Add", scaled, site.weight("b", site.array("b", shape)))


@converts("nn.SpatialCrossMapLRN", "cudnn.SpatialCrossMapLRN", "inn.SpatialCrossResponseNormalization")
def _lrn(site: Site) -> Nested:
    bias = site.number("K") if site.has("K") else site.number("k", 1.0)
    return site.add("LRN", site.tensor(4), size=site.integer("size", least=1), alpha=site.number("alpha", 1e-4),
                    beta=site.number("beta", 0.75), bias=bias)


@converts("nn.Normalize")
def _normalize(site: Site) -> Nested:
    """x / (sum |x|^p + eps)^(1/p) over the second axis; for p = inf, x / (max |x| + eps)."""
    x, power, eps = site.tensor(2), site.fields.get("p"), site.scalar(site.number("eps", 1e-10))
    axes = site.integers(1)
    if power == math.inf:
        norm = site.add("Add", site.add("ReduceMax", site.add("Abs", x), axes), eps)
    elif (power := site.number("p")) == 2:
        squares = site.add("ReduceSum", site.add("Mul", x, x), axes)
        norm = site.add("Sqrt", site.add("Add", squares, eps))
    elif power > 0:
        powers = site.add("Pow", site.add("Abs", x), site.scalar(power))
        total = site.add("Add", site.add("ReduceSum", powers, axes), eps)
        norm = site.add("Pow", total, site.scalar(1 / power))
    else:
        raise site.invalid(f"norm {power}")
    return site.add("Div", x, norm)


@converts("nn.SpatialMaxPooling", "nn.VolumetricMaxPooling", "cudnn.SpatialMaxPooling", "cudnn.VolumetricMaxPooling",
          "inn.SpatialMaxPooling", "nn.SpatialDilatedMaxPooling")
def _max_pool(site: Site) -> Nested:
    x = site.tensor(len(_spatial(site)) + 2)
    return site.add("MaxPool", x, dilations=_each(site, "dilation", 1, least=1), **_window(site, x))


@converts("nn.SpatialAveragePooling", "nn.VolumetricAveragePooling", "cudnn.SpatialAveragePooling",
          "cudnn.VolumetricAveragePooling", "inn.SpatialAveragePooling")
def _average_pool(site: Site) -> Nested:
    """nn's early SpatialAveragePooling, without the field `divide`, gave sums."""
    x = site.tensor(len(_spatial(site)) + 2)
    window = _window(site, x)
    counted = site.flag("count_include_pad", True) and site.fields.get("mode") != "CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING"
    y = site.add("AveragePool", x, count_include_pad=int(counted and any(window["pads"])), **window)
    if site.name == "nn.SpatialAveragePooling" and not site.flag("divide"):
        y = site.add("Mul", y, site.scalar(math.prod(window["kernel_shape"])))
    return y


def _window(site: Site, x: ir.Value) -> dict:
    """The attributes of a pooling; rounding up is written only where it can matter."""
    kernel, pads = _each(site, "k", least=1), _padding(site)
    strides = [site.integer("d" + letter, size, least=1) for letter, size in zip(_spatial(site), kernel)]
    dilations = _each(site, "dilation", 1, least=1)
    if any(pad >= size for pad, size in zip(pads, kernel)):
        raise site.invalid(f"padding {pads} for a window of {kernel}")
    sizes = site.shape(x)[2:]
    ceil = site.name.startswith("inn.") or site.flag("ceil_mode")
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations)]
    exact = None not in sizes and all((n + 2 * p - k) % d == 0 for n, p, k, d in zip(sizes, pads, spans, strides))
    return {"kernel_shape": kernel, "strides": strides, "pads": pads * 2, "ceil_mode": int(ceil and not exact)}


@converts("nn.TemporalMaxPooling")
def _temporal_max_pool(site: Site) -> Nested:
    rows = site.add("Transpose", site.tensor(3), perm=[0, 2, 1])
    rows = site.add("MaxPool", rows, **_window(site, rows))
    return site.add("Transpose", rows, perm=[0, 2, 1])


@converts("nn.SpatialAdaptiveMaxPooling", "nn.SpatialAdaptiveAveragePooling")
def _adaptive_pool(site: Site) -> Nested:
    """Window i of n covers floor(i*size/n) to ceil((i+1)*size/n): one pooling if all are alike, else axis by axis."""
    x, average = site.tensor(4), "Average" in site.name
    counts = [site.integer(letter, least=1) for letter in "HW"]
    if counts == [1, 1]:
        return site.add("GlobalAveragePool" if average else "GlobalMaxPool", x)
    sizes = site.shape(x)[2:]
    if None in sizes:
        raise site.unsupported(f"pooling to {counts[0]}x{counts[1]} needs to know the input's size; give the input's shape")
    if all(size % count == 0 for size, count in zip(sizes, counts)):
        kernel = [size // count for size, count in zip(sizes, counts)]
        return site.add("AveragePool" if average else "MaxPool", x, kernel_shape=kernel, strides=kernel)
    if max(counts) > 256:
        raise site.unsupported(f"pooling of {sizes[0]}x{sizes[1]} to {counts[0]}x{counts[1]}")
    for along, size, count in zip((2, 3), sizes, counts):
        parts = []
        for i in range(count):
            begin, end = i * size // count, -(-(i + 1) * size // count)
            part = site.add("Slice", x, site.integers(begin), site.integers(end), site.integers(along))
            parts.append(site.add("ReduceMean" if average else "ReduceMax", part, site.integers(along)))
        x = site.concat(parts, along)
    return x
