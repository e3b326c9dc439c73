"""Sliding-window attributes shared by convolution and pooling: kernel, stride, dilation and resolved padding."""
from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from ..errors import ShapeError
from .base import NotNative, attr


class Window(NamedTuple):
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]  # (before, after) per spatial dimension; auto_pad already resolved

    def is_point(self) -> bool:
        """One element wide in every dimension, and without padding."""
        return set(self.kernel) == {1} and not any(p for pair in self.pads for p in pair)

    def reach(self, d: int) -> int:
        """Input pixels under the dilated kernel."""
        return (self.kernel[d] - 1) * self.dilation[d] + 1


def pixels(win: Window, size) -> list[int] | None:
    """How many windows fit an image of spatial size `size`, border included; None if not even one."""
    space = [(n + sum(win.pads[d]) - win.reach(d)) // win.stride[d] + 1 for d, n in enumerate(size)]
    return space if min(space) > 0 else None


def window(node: ir.Node, in_size, kernel) -> Window:
    """Resolve the node's attributes for an input of spatial size `in_size`.

    Raises NotNative on attributes whose lengths do not fit (the checker has seen to legal models; this is the last door).
    """
    rank = len(in_size)
    stride = tuple(attr(node, "strides", [1] * rank))
    dilation = tuple(attr(node, "dilations", [1] * rank))
    flat = attr(node, "pads", [0] * 2 * rank)
    kernel = tuple(kernel)
    if not len(kernel) == len(stride) == len(dilation) == rank or len(flat) != 2 * rank or min((*kernel, *stride, *dilation)) < 1:
        raise NotNative("kernel, strides, dilations and pads do not fit the input's rank")
    if tuple(attr(node, "kernel_shape", kernel)) != kernel:
        raise ShapeError(f"node {node.name!r} ({node.op_type}): kernel_shape {attr(node, 'kernel_shape')} "
                         f"contradicts its weights' {kernel}")
    auto = attr(node, "auto_pad", "NOTSET")
    pads = list(zip(flat[:rank], flat[rank:]))
    if auto == "VALID":
        pads = [(0, 0)] * rank
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for n, k, s, d in zip(in_size, kernel, stride, dilation):
            total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return Window(kernel, stride, dilation, tuple(pads))
