"""Col2Im (torch's Fold): columns of blocks, each number added to the pixel that it belongs to."""
from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from .base import NotNative
from .composed import Body, composed
from .window import pixels, window


@composed("Col2Im")
def col2im(b: Body) -> ir.Value:
    """Rows of all images and channels, [tap and block, image, channel], scattered with addition; one row more takes the border."""
    if any(b.facts[i].value is None for i in (1, 2)):
        raise NotNative("shapes that depend on data")
    size, kernel = (b.facts[i].value.tolist() for i in (1, 2))
    win, (images, rows, blocks) = window(b.node, size, kernel), b.facts[0].shape
    counts, channels = pixels(win, size), rows // prod(kernel)
    if counts is None or prod(counts) != blocks or rows != channels * prod(kernel):
        raise ValueError(f"columns of shape {[images, rows, blocks]} for blocks of {kernel} in an image of {size}")
    places = np.indices((*kernel, *counts))
    places = [tap * d + at * s - pad for tap, at, d, s, (pad, _) in
              zip(places[:len(size)], places[len(size):], win.dilation, win.stride, win.pads)]
    inside = np.logical_and.reduce([(place >= 0) & (place < n) for place, n in zip(places, size)])
    index = np.where(inside, sum(place * prod(size[d + 1:]) for d, place in enumerate(places)), prod(size))
    columns = b("Transpose", b("Reshape", b.inputs[0], b.ints(images, channels, index.size)), perm=[2, 0, 1])
    zeros = b("Expand", b.constant(np.zeros(1, b.facts[0].dtype)), b.ints(prod(size) + 1, images, channels))
    sums = b("ScatterND", zeros, b.constant(index.reshape(-1, 1)), columns, reduction="add")
    image = b("Transpose", b("Slice", sums, b.ints(0), b.ints(prod(size)), b.ints(0)), perm=[1, 2, 0])
    return b("Reshape", image, b.ints(images, channels, *size))
