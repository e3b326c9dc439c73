"""Torch7 layers with weights or windows: convolution, linear, normalisation, pooling."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from infold.importers.torch7_graph import Graph, Nested, converts
from infold.importers.torch7_module import Module

# The letters of a module's fields (kW, dH, padT, ...), in the order of ONNX's spatial axes.
_LETTERS = {"Temporal": "W", "Spatial": "HW", "Volumetric": "THW"}


def _spatial(module: Module) -> str:
    kind = module.name.partition(".")[2]
    return next(value for prefix, value in _LETTERS.items() if kind.startswith(prefix))


def _each(module: Module, prefix: str, default: object = None, *, least: int) -> list[int]:
    arguments = () if default is None else (default,)
    return [module.integer(prefix + letter, *arguments, least=least) for letter in _spatial(module)]


def _padding(module: Module) -> list[int]:
    return _each(module, "pad", module.integer("padding", 0, least=0), least=0)


@converts(
    "nn.SpatialConvolution",
    "nn.SpatialConvolutionMM",
    "nn.SpatialDilatedConvolution",
    "nn.VolumetricConvolution",
    "nn.VolumetricConvolutionMM",
    "nn.VolumetricDilatedConvolution",
    "cudnn.SpatialConvolution",
    "cudnn.VolumetricConvolution",
    "cudnn.SpatialDilatedConvolution",
    "cudnn.VolumetricDilatedConvolution",
    "inn.SpatialConvolution",
    "nn.SpatialFullConvolution",
    "nn.VolumetricFullConvolution",
    "cudnn.SpatialFullConvolution",
    "cudnn.VolumetricFullConvolution",
)
def _convolution(graph: Graph, module: Module, x: Nested) -> Nested:
    """A convolution, or a full (transposed) one."""
    full, kernel = "Full" in module.name, _each(module, "k", least=1)
    x = graph.tensor(module, x, len(kernel) + 2)
    channels, out = module.integer("nInputPlane", least=1), module.integer("nOutputPlane", least=1)
    groups = module.integer("groups", 1, least=1)
    if channels % groups or out % groups:
        raise module.invalid(f"{groups} groups of {channels} input and {out} output planes")
    graph.check_dim(module, x, 1, channels)
    planes = (channels, out // groups) if full else (out, channels // groups)
    weight = module.array("weight", (*planes, *kernel))
    own = {"output_padding": _each(module, "adj", 0, least=0)} if full else {"dilations": _each(module, "dilation", 1, least=1)}
    operator, pads = "ConvTranspose" if full else "Conv", _padding(module) * 2
    return _filters(graph, module, operator, x, weight, out, pads=pads, **own, group=groups)


@converts("nn.SpatialConvolutionMap")
def _convolution_map(graph: Graph, module: Module, x: Nested) -> Nested:
    """A convolution in which each output plane reads some input planes: a dense one with zeros."""
    x = graph.tensor(module, x, 4)
    channels, out = module.integer("nInputPlane", least=1), module.integer("nOutputPlane", least=1)
    kernel, taps, pairs = _each(module, "k", least=1), module.array("weight"), module.array("connTable")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or taps.shape != (len(pairs), *kernel):
        raise module.invalid(f"weight {taps.shape} and connection table {pairs.shape} do not fit kernel {kernel}")
    if channels * out > 16 * len(pairs) + 4096:
        raise module.unsupported(f"only {len(pairs)} of {channels}x{out} planes are connected")
    if pairs.min() < 1 or (pairs.max(axis=0) > (channels, out)).any():
        raise module.invalid("the connection table names planes that do not exist")
    graph.check_dim(module, x, 1, channels)
    weight = np.zeros((out, channels, *kernel))
    source, target = pairs.astype(np.int64).T - 1
    np.add.at(weight, (target, source), taps)
    return _filters(graph, module, "Conv", x, weight, out)


@converts("nn.TemporalConvolution", "cudnn.TemporalConvolution")
def _temporal_convolution(graph: Graph, module: Module, x: Nested) -> Nested:
    """Frames come first here: (batch, time, channels)."""
    x = graph.tensor(module, x, 3)
    channels, out = module.integer("inputFrameSize", least=1), module.integer("outputFrameSize", least=1)
    graph.check_dim(module, x, 2, channels)
    [width] = _each(module, "k", least=1)
    weight = module.array("weight", (out, width, channels)).transpose(0, 2, 1)
    rows = graph.add(module, "Transpose", x, perm=[0, 2, 1])
    rows = _filters(graph, module, "Conv", rows, weight, out, pads=[module.integer("padH", 0, least=0)] * 2)
    return graph.add(module, "Transpose", rows, perm=[0, 2, 1])


@converts("nn.SpatialSubSampling")
def _subsampling(graph: Graph, module: Module, x: Nested) -> Nested:
    """One weight and one bias for each plane, times the sum over a window."""
    x, channels, kernel = (graph.tensor(module, x, 4), module.integer("nInputPlane", least=1), _each(module, "k", least=1))
    graph.check_dim(module, x, 1, channels)
    if math.prod(kernel) > 1 << 16:
        raise module.unsupported(f"a window of {kernel}")
    weight = np.broadcast_to(module.array("weight", (channels, 1, 1, 1)), (channels, 1, *kernel))
    return _filters(graph, module, "Conv", x, weight, channels, group=channels)


def _filters(
    graph: Graph, module: Module, operator: str, x: ir.Value, weight: np.ndarray, out: int, **attributes: object
) -> ir.Value:
    """The node of a (transposed) convolution with the module's strides and bias; the weight's last axes are the kernel."""
    return graph.add(
        module,
        operator,
        x,
        graph.weight(module, "weight", weight),
        *_bias(graph, module, out),
        kernel_shape=weight.shape[2:],
        strides=_each(module, "d", 1, least=1),
        **attributes,
    )


@converts("nn.Linear", "nn.LinearNoBias")
def _linear(graph: Graph, module: Module, x: Nested) -> Nested:
    x, weight = graph.tensor(module, x, 2), module.array("weight")
    if weight.ndim != 2:
        raise module.invalid(f"weight of shape {weight.shape}; outputs x inputs expected")
    graph.check_dim(module, x, 1, weight.shape[1])
    return graph.add(module, "Gemm", x, graph.weight(module, "weight", weight), *_bias(graph, module, len(weight)), transB=1)


def _bias(graph: Graph, module: Module, count: int) -> list[ir.Value]:
    return [graph.weight(module, "bias", module.array("bias", (count,)))] if module.has("bias") else []


@converts(
    "nn.BatchNormalization",
    "nn.SpatialBatchNormalization",
    "nn.VolumetricBatchNormalization",
    "cudnn.BatchNormalization",
    "cudnn.SpatialBatchNormalization",
    "cudnn.VolumetricBatchNormalization",
)
def _batch_norm(graph: Graph, module: Module, x: Nested) -> Nested:
    """Early versions stored running_std = 1 / sqrt(variance + eps)."""
    kind = module.name.partition(".")[2]
    x = graph.tensor(module, x, {"S": 4, "V": 5, "B": 2}[kind[0]])
    eps = module.number("eps", 1e-5)
    if eps < 0:
        raise module.invalid(f"eps {eps}")
    mean = module.array("running_mean").reshape(-1)
    count = mean.size
    graph.check_dim(module, x, 1, count)
    if module.has("running_var"):
        variance = module.array("running_var", (count,))
    else:
        with np.errstate(all="ignore"):
            variance = np.asarray(module.array("running_std", (count,)), np.float64) ** -2 - eps
    scale = module.array("weight", (count,)) if module.has("weight") else np.ones(count)
    shift = module.array("bias", (count,)) if module.has("bias") else np.zeros(count)
    named = {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance}
    return graph.add(module, "BatchNormalization", x, *(graph.weight(module, *item) for item in named.items()), epsilon=eps)


@converts("nn.InstanceNormalization")
def _instance_norm(graph: Graph, module: Module, x: Nested) -> Nested:
    x, count = graph.tensor(module, x, 4), module.integer("nOutput", least=1)
    graph.check_dim(module, x, 1, count)
    affine = [graph.weight(module, field, module.array(field, (count,))) for field in ("weight", "bias")]
    return graph.add(module, "InstanceNormalization", x, *affine, epsilon=module.number("eps", 1e-5))


@converts("inn.SpatialConstAffine")
def _const_affine(graph: Graph, module: Module, x: Nested) -> Nested:
    x, scale = graph.tensor(module, x, 4), module.array("a")
    shape = (1, scale.size, 1, 1)
    scaled = graph.add(module, "Mul", x, graph.weight(module, "a", module.array("a", shape)))
    return graph.add(module, "Add", scaled, graph.weight(module, "b", module.array("b", shape)))


@converts("nn.SpatialCrossMapLRN", "cudnn.SpatialCrossMapLRN", "inn.SpatialCrossResponseNormalization")
def _lrn(graph: Graph, module: Module, x: Nested) -> Nested:
    bias = module.number("K") if module.has("K") else module.number("k", 1.0)
    return graph.add(
        module,
        "LRN",
        graph.tensor(module, x, 4),
        size=module.integer("size", least=1),
        alpha=module.number("alpha", 1e-4),
        beta=module.number("beta", 0.75),
        bias=bias,
    )


@converts("nn.Normalize")
def _normalize(graph: Graph, module: Module, x: Nested) -> Nested:
    """x / (sum |x|^p + eps)^(1/p) over the second axis; for p = inf, x / (max |x| + eps)."""
    x, power, eps = graph.tensor(module, x, 2), module.fields.get("p"), graph.scalar(module.number("eps", 1e-10))
    axes = graph.integers(1)
    if power == math.inf:
        norm = graph.add(module, "Add", graph.add(module, "ReduceMax", graph.add(module, "Abs", x), axes), eps)
    elif (power := module.number("p")) == 2:
        squares = graph.add(module, "ReduceSum", graph.add(module, "Mul", x, x), axes)
        norm = graph.add(module, "Sqrt", graph.add(module, "Add", squares, eps))
    elif power > 0:
        powers = graph.add(module, "Pow", graph.add(module, "Abs", x), graph.scalar(power))
        total = graph.add(module, "Add", graph.add(module, "ReduceSum", powers, axes), eps)
        norm = graph.add(module, "Pow", total, graph.scalar(1 / power))
    else:
        raise module.invalid(f"norm {power}")
    return graph.add(module, "Div", x, norm)


@converts(
    "nn.SpatialMaxPooling",
    "nn.VolumetricMaxPooling",
    "cudnn.SpatialMaxPooling",
    "cudnn.VolumetricMaxPooling",
    "inn.SpatialMaxPooling",
    "nn.SpatialDilatedMaxPooling",
)
def _max_pool(graph: Graph, module: Module, x: Nested) -> Nested:
    x = graph.tensor(module, x, len(_spatial(module)) + 2)
    return graph.add(module, "MaxPool", x, dilations=_each(module, "dilation", 1, least=1), **_window(graph, module, x))


@converts(
    "nn.SpatialAveragePooling",
    "nn.VolumetricAveragePooling",
    "cudnn.SpatialAveragePooling",
    "cudnn.VolumetricAveragePooling",
    "inn.SpatialAveragePooling",
)
def _average_pool(graph: Graph, module: Module, x: Nested) -> Nested:
    """nn's early SpatialAveragePooling, without the field `divide`, gave sums."""
    x = graph.tensor(module, x, len(_spatial(module)) + 2)
    window = _window(graph, module, x)
    counted = module.flag("count_include_pad", True) and module.fields.get("mode") != "CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING"
    y = graph.add(module, "AveragePool", x, count_include_pad=int(counted and any(window["pads"])), **window)
    if module.name == "nn.SpatialAveragePooling" and not module.flag("divide"):
        y = graph.add(module, "Mul", y, graph.scalar(math.prod(window["kernel_shape"])))
    return y


def _window(graph: Graph, module: Module, x: ir.Value) -> dict:
    """The attributes of a pooling; rounding up is written only where it can matter."""
    kernel, pads = _each(module, "k", least=1), _padding(module)
    strides = [module.integer("d" + letter, size, least=1) for letter, size in zip(_spatial(module), kernel)]
    dilations = _each(module, "dilation", 1, least=1)
    if any(pad >= size for pad, size in zip(pads, kernel)):
        raise module.invalid(f"padding {pads} for a window of {kernel}")
    sizes = graph.shape(x)[2:]
    ceil = module.name.startswith("inn.") or module.flag("ceil_mode")
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations)]
    exact = None not in sizes and all((n + 2 * p - k) % d == 0 for n, p, k, d in zip(sizes, pads, spans, strides))
    return {"kernel_shape": kernel, "strides": strides, "pads": pads * 2, "ceil_mode": int(ceil and not exact)}


@converts("nn.TemporalMaxPooling")
def _temporal_max_pool(graph: Graph, module: Module, x: Nested) -> Nested:
    rows = graph.add(module, "Transpose", graph.tensor(module, x, 3), perm=[0, 2, 1])
    rows = graph.add(module, "MaxPool", rows, **_window(graph, module, rows))
    return graph.add(module, "Transpose", rows, perm=[0, 2, 1])


@converts("nn.SpatialAdaptiveMaxPooling", "nn.SpatialAdaptiveAveragePooling")
def _adaptive_pool(graph: Graph, module: Module, x: Nested) -> Nested:
    """Window i of n covers floor(i*size/n) to ceil((i+1)*size/n): one pooling if all are alike, else axis by axis."""
    x, average = graph.tensor(module, x, 4), "Average" in module.name
    counts = [module.integer(letter, least=1) for letter in "HW"]
    if counts == [1, 1]:
        return graph.add(module, "GlobalAveragePool" if average else "GlobalMaxPool", x)
    sizes = graph.shape(x)[2:]
    if None in sizes:
        raise module.unsupported(f"pooling to {counts[0]}x{counts[1]} needs to know the input's size; give the input's shape")
    if all(size % count == 0 for size, count in zip(sizes, counts)):
        kernel = [size // count for size, count in zip(sizes, counts)]
        return graph.add(module, "AveragePool" if average else "MaxPool", x, kernel_shape=kernel, strides=kernel)
    if max(counts) > 256:
        raise module.unsupported(f"pooling of {sizes[0]}x{sizes[1]} to {counts[0]}x{counts[1]}")
    for along, size, count in zip((2, 3), sizes, counts):
        parts = []
        for i in range(count):
            begin, end = i * size // count, -(-(i + 1) * size // count)
            part = graph.add(module, "Slice", x, graph.integers(begin), graph.integers(end), graph.integers(along))
            parts.append(graph.add(module, "ReduceMean" if average else "ReduceMax", part, graph.integers(along)))
        x = graph.concat(module, parts, along)
    return x
