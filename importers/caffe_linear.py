"""Caffe's weighted sums: Convolution, Deconvolution, InnerProduct; and the Padding layer of the first generation."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from google.protobuf.message import Message

from infold.importers.caffe_graph import INT_MAX, Site, layer


@layer("Convolution", "DepthwiseConvolution", "ConvolutionDepthwise")
def convolution(site: Site) -> ir.Value:
    """Cross-correlation, output size floor((in + 2·pad − dilation·(kernel − 1) − 1) / stride) + 1."""
    param, shape = site.layer.convolution_param, site.shape(site.bottom)
    kernel, stride, pad, dilation = window(site, param, len(shape) - 2)
    group = shape[1] if site.layer.type != "Convolution" and not param.HasField("group") else param.group
    outputs = _check_groups(site, param, group, shape[1])
    spatial = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in zip(shape[2:], kernel, stride, pad, dilation)]
    if any(size < 1 for size in spatial):
        site.fail(f"the kernel {kernel} (dilation {dilation}, pad {pad}) is larger than the blob of shape {list(shape)}")
    filters = (outputs, shape[1] // group, *kernel)
    return _sums(site, "Conv", filters, outputs, group, (kernel, stride, pad, dilation))


@layer("Deconvolution")
def deconvolution(site: Site) -> ir.Value:
    """Transposed convolution, output size stride·(in − 1) + dilation·(kernel − 1) + 1 − 2·pad."""
    param, shape = site.layer.convolution_param, site.shape(site.bottom)
    kernel, stride, pad, dilation = window(site, param, len(shape) - 2)
    outputs = _check_groups(site, param, param.group, shape[1])
    spatial = [s * (size - 1) + d * (k - 1) + 1 - 2 * p for size, k, s, p, d in zip(shape[2:], kernel, stride, pad, dilation)]
    if any(size < 1 for size in spatial):
        site.fail(f"the pad {pad} leaves nothing of the blob of shape {list(shape)}")
    filters = (shape[1], outputs // param.group, *kernel)
    return _sums(site, "ConvTranspose", filters, outputs, param.group, (kernel, stride, pad, dilation))


def _sums(site: Site, operator: str, filters: tuple[int, ...], outputs: int, group: int, window: tuple[list[int], ...]) -> ir.Value:
    """The node of a (transposed) convolution whose filters have this shape."""
    weight, bias = site.constant(site.blob(0, filters, "weight"), "weight"), site.layer.convolution_param.bias_term
    kernel, stride, pad, dilation = window
    return site.node(
        operator,
        [site.bottom, weight, *_bias(site, bias, outputs)],
        kernel_shape=kernel,
        strides=stride,
        pads=pad * 2,
        dilations=dilation,
        group=group,
    )


@layer("InnerProduct")
def inner_product(site: Site) -> ir.Value:
    """All axes from `axis` on times a matrix (N, K), or (K, N) if transposed; plus a bias of N."""
    param, shape, value = site.layer.inner_product_param, site.shape(site.bottom), site.bottom
    axis = site.axis(param.axis, len(shape))
    count, outputs = math.prod(shape[axis:]), param.num_output
    if outputs < 1:
        site.fail("num_output must be at least 1")
    matrix = site.blob(0, (count, outputs) if param.transpose else (outputs, count), "weight")
    bias = _bias(site, param.bias_term, outputs)
    if axis == 1:
        if len(shape) > 2:
            value = site.node("Flatten", [value], "flatten", axis=1)
        weight = site.constant(matrix, "weight")
        return site.node("Gemm", [value, weight, *bias], transB=int(not param.transpose))
    if len(shape) != axis + 1:
        value = site.reshape(value, (*shape[:axis], count), "flatten")
    weight = site.constant(matrix if param.transpose else matrix.T, "weight")
    top = site.node("MatMul", [value, weight])
    return site.node("Add", [top, *bias], "bias") if bias else top


@layer("Padding")
def padding(site: Site) -> ir.Value:
    """Zeros around the image, all sides alike."""
    (pad,) = site.layer.convolution_param.pad or [0]
    site.image(site.bottom)
    return site.node("Pad", [site.bottom, site.constant([0, 0, pad, pad] * 2, "pads")])


def window(site: Site, param: Message, rank: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return kernel, stride, pad and dilation of a ConvolutionParameter, one number per spatial axis."""
    if param.axis not in (1, -rank - 1) or rank < 1:
        site.fail(f"axis {param.axis} of a blob of rank {rank + 2}: channels must be axis 1, with spatial axes after it")
    values = []
    for plain, name, default in (("kernel_size", "kernel", 0), ("stride", "stride", 1), ("pad", "pad", 0), ("dilation", "", 1)):
        given = list(getattr(param, plain))
        if name and (param.HasField(f"{name}_h") or param.HasField(f"{name}_w")):
            if given or rank != 2:
                site.fail(f"{name}_h and {name}_w exclude {plain}, and need two spatial axes (there are {rank})")
            given = [getattr(param, f"{name}_h"), getattr(param, f"{name}_w")]
        if len(given) not in (0, 1, rank):
            site.fail(f"{plain} has {len(given)} numbers for {rank} spatial axes")
        given = (given or [default]) * (rank if len(given) < 2 else 1)
        if any(number < (plain != "pad") or number > INT_MAX for number in given):
            site.fail(f"{plain} is {given}, must be {int(plain != 'pad')} to {INT_MAX}")
        values.append(given)
    return tuple(values)


def _check_groups(site: Site, param: Message, group: int, channels: int) -> int:
    """Return the number of outputs after checking that the groups divide it and the channels."""
    if param.num_output < 1 or group < 1 or channels % group or param.num_output % group:
        site.fail(f"{group} groups must divide {channels} input channels and {param.num_output} outputs")
    return param.num_output


def _bias(site: Site, present: bool, size: int) -> list[ir.Value]:
    return [site.constant(np.ascontiguousarray(site.blob(1, (size,), "bias")), "bias")] if present else []
