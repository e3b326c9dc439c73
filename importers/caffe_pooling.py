"""Caffe's Pooling: sizes rounded up, windows clipped, averages that count the padding but not what lies beyond it."""

from __future__ import annotations

import onnx_ir as ir

from infold.errors import UnsupportedError
from infold.importers.caffe_graph import INT_MAX, Site, layer


@layer("Pooling")
def pooling(site: Site) -> ir.Value | list[ir.Value]:
    """Maximum or average over windows. A second top of a maximum becomes ONNX's indices, which Upsample takes.

    Every size is known, so rounding up becomes explicit padding at the end. An average over windows that reach beyond
    the padded image divides by the part inside: there the padding is a node of its own.
    """
    param = site.layer.pooling_param
    image = list(site.image(site.bottom)[2:])
    if param.pool == 2:
        site.fail("stochastic pooling is not supported", UnsupportedError)
    average = param.pool == 1
    kernel, stride, pad = ([_side(site, name, side) for side in "hw"] for name in ("kernel_size", "stride", "pad"))
    indices = not average and len(site.layer.top) == 2
    if param.global_pooling:
        if pad != [0, 0] or stride != [1, 1]:
            site.fail("global pooling has no pad and no stride")
        if not indices:
            return site.node("GlobalAveragePool" if average else "GlobalMaxPool", [site.bottom])
        kernel = image
    for name, values, least in (("kernel_size", kernel, 1), ("stride", stride, 1), ("pad", pad, 0)):
        if any(not least <= value <= INT_MAX for value in values):
            site.fail(f"{name} is {values}, must be {least} to {INT_MAX}")
    if any(p >= k for p, k in zip(pad, kernel)):
        site.fail(f"the pad {pad} must be smaller than the kernel {kernel}")
    floor = param.round_mode == 1 or not param.ceil_mode
    sizes = [_outputs(size, *each, floor) for size, *each in zip(image, kernel, stride, pad)]
    if any(size < 1 for size in sizes):
        site.fail(f"the kernel {kernel} (pad {pad}) is larger than the image {image}")
    end = [max(0, (out - 1) * s + k - size - p) for out, size, k, s, p in zip(sizes, image, kernel, stride, pad)]
    beyond = any(e > p for e, p in zip(end, pad))
    attributes = {"kernel_shape": kernel, "strides": stride}
    if not average:
        return site.nodes("MaxPool", [site.bottom], 1 + indices, pads=pad + end, **attributes)
    if not beyond:
        return site.node("AveragePool", [site.bottom], pads=pad + end, count_include_pad=1, **attributes)
    value = site.bottom
    if any(pad):
        value = site.node("Pad", [value, site.constant([0, 0, *pad] * 2, "pads")], "pad")
        end = [max(0, e - p) for e, p in zip(end, pad)]
    return site.node("AveragePool", [value], pads=[0, 0, *end], count_include_pad=0, **attributes)


def _side(site: Site, name: str, side: str) -> int:
    """Return the size, stride or pad of one side, which is given for both or for each."""
    param, own = site.layer.pooling_param, f"{name.removesuffix('_size')}_{side}"
    if param.HasField(own):
        if param.HasField(name):
            site.fail(f"{name} and {own} exclude each other")
        return getattr(param, own)
    return getattr(param, name)


def _outputs(size: int, kernel: int, stride: int, pad: int, floor: bool) -> int:
    """Number of windows: rounded up, but the last one starts inside the image or its leading padding."""
    room = size + 2 * pad - kernel
    count = (room // stride if floor else -(-room // stride)) + 1
    return count - ((count - 1) * stride >= size + pad)
