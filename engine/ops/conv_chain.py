"""Convolutions in a row (expand or first layer, depthwise, project), band of rows by band, so that the wide image between them
never leaves the second-level cache.

Each thread computes its own rows of the last output. A band of them needs a window of rows of each image in between; such a window
has memory of its own: rows still needed from the band before are moved to its top, the others are computed. Every number is the
same as it would be layer by layer.
"""
from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np

from .. import _native
from ..plan.choice import Way
from ..plan.tensor import BF16, F32, Tensor
from .base import NotNative, attr
from .conv_depthwise import depthwise, emit_depthwise, is_depthwise
from .conv_direct import emit_direct, product_size
from .convolution import Convolution, convolution
from .epilogue import Epilogue, epilogue, take
from .splits import cycles, fastest

# Cycles, fitted to measurements: a byte to or from beyond the second-level cache, and a step with its loops starting and ending.
FAR_BYTE, STEP = 1 / 16, 1000


class Link(NamedTuple):
    c: Convolution
    found: Epilogue

    def half(self, ctx) -> bool:
        """Whether it works on images of bf16 numbers."""
        return ctx.halves and (is_depthwise(self.c) or fastest(ctx, product_size(self.c)) == "bf16")

    def emit(self, ctx, x: Tensor, out: Tensor, residual, before) -> None:
        ctx.node = self.c.node
        if is_depthwise(self.c):
            emit_depthwise(ctx, self.c, self.found, x, out)
        else:
            emit_direct(ctx, self.c, self.found, x, out, residual, before, fastest(ctx, product_size(self.c)))

    def rows(self, begin: int, end: int) -> tuple[int, int]:
        """Input rows, padding included, that output rows [begin, end) need."""
        win = self.c.window
        return begin * win.stride[0] - win.pads[0][0], (end - 1) * win.stride[0] - win.pads[0][0] + win.reach(0)

    def row_bytes(self, dtype: np.dtype) -> int:
        """Of one output row, with the border its reader may want (roughly)."""
        return dtype.itemsize * self.c.columns * (self.c.out_shape[3] + 2)


def chain(ctx, c: Convolution) -> Way | None:
    links = _links(ctx, c) if is_depthwise(c) or _before_groups(ctx, c.node) else []
    if len(links) < 2:
        return None
    cache = _native.cache_bytes(2) or 1 << 19
    far = cache // 2
    height, threads = links[-1].c.out_shape[2], ctx.options.threads
    dtype = _dtype(ctx, links)
    band = _band_rows(links, cache * 3 // 4, dtype)
    if band is None:
        return None
    images = [prod(link.c.out_shape) * dtype.itemsize for link in links[:-1]]
    saved = sum(2 * n for n in images if n > far * threads) * FAR_BYTE  # layer by layer, threads keep to their rows, too
    bands = c.out_shape[0] * (-(-height // band) + threads)
    moved = sum(bands * (link.c.window.reach(0) - 1) * before.row_bytes(dtype) for before, link in pairwise(links)) * FAR_BYTE
    return Way("chain", _cycles(ctx, c) - saved + moved + _division(ctx, links) + bands * 2 * len(links) * STEP,
               lambda: _emit(ctx, links, band), half=dtype == BF16, alone=False)


def _cycles(ctx, c: Convolution) -> float:
    """Of one layer alone."""
    way = depthwise(ctx, c)
    return way.cycles if way is not None else cycles(ctx, fastest(ctx, product_size(c)), product_size(c))


def _division(ctx, links: list[Link]) -> float:
    """What is lost between threads: rows of the images in between that two of them compute, and those that one has more to do."""
    rows = links[-1].c.out_shape[0] * links[-1].c.out_shape[2]
    pieces = _pieces(rows, ctx.options.threads)
    again = 0.0
    for before, link in pairwise(links):
        shared = max(link.c.window.reach(0) - link.c.window.stride[0], 0)
        again += shared * _cycles(ctx, before.c) / (before.c.out_shape[0] * before.c.out_shape[2])
    uneven = len(pieces) * max(end - begin for begin, end in pieces) / rows - 1
    return (len(pieces) - 1) * again + uneven * sum(_cycles(ctx, link.c) for link in links)


def _dtype(ctx, links: list[Link]) -> np.dtype:
    """Of the images in between: bf16 if all links can."""
    return BF16 if all(link.half(ctx) for link in links) else F32


def _links(ctx, c: Convolution) -> list[Link]:
    """[expand or any other,] depthwise [, project]: each reads the one before, and nobody else does."""
    links: list[Link] = []
    while c is not None and len(c.window.kernel) == 2 and c.weight is not None:
        wide = is_depthwise(c)
        if not wide and (c.groups != 1 or (not c.window.is_point() and (links or ctx.halves))):
            break  # at `medium` a picture is better rounded as a whole
        if wide if links and is_depthwise(links[-1].c) else links and not wide:
            break  # two depthwise layers or two others: a new chain
        found = epilogue(ctx, c.node, residual=not wide, per_channel=True)
        links.append(Link(c, found))
        if not wide and len(links) > 1:
            break
        c = _next(ctx, found.output)
    return links if any(is_depthwise(link.c) for link in links) else []


def _before_groups(ctx, node) -> bool:
    """Whether the convolution behind the node, whatever lies between, has groups: most have none, and no chain begins there."""
    while (node := ctx.graph.only_reader(node.outputs[0].name)) is not None and node.op_type != "Conv":
        pass
    return node is not None and attr(node, "group", 1) > 1


def _next(ctx, name: str) -> Convolution | None:
    reader = ctx.graph.only_reader(name)
    if reader is None or reader.op_type != "Conv" or reader.domain or reader.inputs[0].name != name or reader in ctx.done:
        return None
    try:
        return convolution(ctx, reader)
    except NotNative:
        return None


def _band_rows(links: list[Link], room: int, dtype: np.dtype) -> int | None:
    """The most output rows whose windows of all images in between fit `room` bytes; None if not even those of one do."""
    best = None
    for rows in range(1, links[-1].c.out_shape[2] + 1):
        used, (begin, end) = 0, (0, rows)
        for before, link in zip(reversed(links[:-1]), reversed(links[1:])):
            begin, end = link.rows(begin, end)
            used += (end - begin) * before.row_bytes(dtype)
        if used > room:
            break
        best = rows
    return best


def _emit(ctx, links: list[Link], band: int) -> None:
    first, last = links[0], links[-1]
    for link in links:
        ctx.node = link.c.node
        take(ctx, link.found)
        ctx.done.add(link.c.node)
    ctx.node = first.c.node
    before = ctx.deferred.get(first.c.x) if not is_depthwise(first.c) else None
    half = _dtype(ctx, links) == BF16
    x = before.source if before is not None else ctx.image(first.c.x, first.c.border, half)
    half = half and (x.dtype == BF16 or not is_depthwise(first.c))  # a depthwise convolution writes what it reads
    out = ctx.output(last.found.output, image=True, half=half)
    half = half and (out.dtype == BF16 or not is_depthwise(last.c))
    dtype, x = (BF16, x) if half else (F32, ctx.wide(x))
    residuals = [None if link.found.residual is None else ctx.image(link.found.residual, half=half) for link in links]
    images, _, height, _ = out.shape
    pieces = _pieces(images * height, ctx.options.threads)
    tallest = min(band, max(end - begin for begin, end in pieces))
    with ctx.side_by_side() as track:
        for begin, end in pieces:
            with track():
                windows = [Window(ctx, writer, reader, _tall(links[i + 1:], tallest), dtype)
                           for i, (writer, reader) in enumerate(pairwise(links))]
                for image in range(begin // height, -(-end // height)):
                    top, stop = max(begin - image * height, 0), min(end - image * height, height)
                    for window in windows:
                        window.restart()
                    for row in range(top, stop, band):
                        _band(ctx, links, windows, before, (x, *residuals), out, image, row, min(row + band, stop))
    ctx.node = first.c.node


def _band(ctx, links, windows, before, sources, out, image: int, begin: int, end: int) -> None:
    """Emit output rows [begin, end) of one image: first what is missing in each window, from the first layer on."""
    x, *residuals = sources
    spans = [(begin, end)]
    for link in reversed(links[1:]):
        spans.append(link.rows(*spans[-1]))
    spans.reverse()  # spans[i]: rows of layer i's output that this band needs
    for i, link in enumerate(links):
        (low, high), target = spans[i], windows[i] if i < len(windows) else None
        if target is not None:
            low, high = target.advance(ctx, low, high)
        if low == high:
            continue
        source_row = low * link.c.window.stride[0]
        source = rows_of(x, image, source_row) if i == 0 else windows[i - 1].at(source_row)
        residual = None if residuals[i] is None else rows_of(residuals[i], image, low)
        link.emit(ctx, source, rows_of(out, image, low, high - low) if target is None else target.at(low, high - low), residual,
                  before if i == 0 else None)


def rows_of(t: Tensor, image: int, row: int, count: int | None = None) -> Tensor:
    """One image of an (N, C, H, W) tensor from `row` on."""
    count = t.shape[2] - row if count is None else count
    return t.view((1, t.shape[1], count, t.shape[3]), t.strides, image * t.strides[0] + row * t.strides[2])


def _tall(readers: list[Link], rows: int) -> int:
    """Rows of a window whose readers, in order, end in `rows` output rows."""
    begin, end = 0, rows
    for link in reversed(readers):
        begin, end = link.rows(begin, end)
    return end - begin


def _pieces(rows: int, threads: int) -> list[tuple[int, int]]:
    share, extra = divmod(rows, threads)
    ends = [0]
    for t in range(threads):
        ends.append(ends[-1] + share + (t < extra))
    return [(a, b) for a, b in pairwise(ends) if a < b]


class Window:
    """The rows of an image in between that one thread holds at a time: rows [begin, end) of the image, padding included."""

    def __init__(self, ctx, writer: Link, reader: Link, height: int, dtype: np.dtype) -> None:
        _, channels, self.image_height, width = writer.c.out_shape
        win = reader.c.window
        self.keep = max(win.reach(0) - win.stride[0], 0)
        self.height = max(height, 2 * self.keep)  # what is kept moves to the top without overlap
        side = reader.c.border[1]
        self.tensor = ctx.new_image((1, channels, self.height, width), ((0, 0), side), dtype)
        self.restart()

    def restart(self) -> None:
        """Hold nothing."""
        self.begin, self.end = 0, None

    def at(self, row: int, count: int | None = None) -> Tensor:
        """A view from image row `row` on."""
        return rows_of(self.tensor, 0, row - self.begin, count)

    def advance(self, ctx, begin: int, end: int) -> tuple[int, int]:
        """Make the window hold [begin, end): returns the rows that are still to be computed; rows of padding are cleared here."""
        kept = 0 if self.end is None else max(self.end - begin, 0)
        if kept:
            wide = self._whole_rows(begin, kept)
            self.begin, self.end = begin, begin + kept
            ctx.copy(wide, self._whole_rows(begin, kept))
        else:
            self.begin = self.end = begin
        todo, self.end = (max(self.end, 0), min(end, self.image_height)), end
        for low, high in ((begin + kept, min(0, end)), (max(self.image_height, begin + kept), end)):
            if low < high:
                ctx.fill(self._whole_rows(low, high - low), 0.0)
        return todo[0], max(todo)

    def _whole_rows(self, row: int, count: int) -> Tensor:
        """Rows with their borders at both sides, as one run of memory."""
        t = self.tensor
        return t.view((count * t.strides[2],), (1,), (row - self.begin) * t.strides[2] - t.border[1][0] * t.strides[3])
