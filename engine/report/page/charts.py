"""Charts as inline SVG. Colours are the page's, marks can be walked through with the keyboard, and each says what it is.

Every piece is `markupsafe.Markup`: what is put in is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup

from .text import power, size

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 78, 24, 14, 44
Scale = Callable[[float], float]


def roofline(layers: Sequence[dict]) -> Markup:
    """GFLOP/s over operations per byte, double logarithmic; the area of a mark is the layer's time. Empty without such layers."""
    shown = [(place, layer) for place, layer in enumerate(layers) if layer["flops"] and layer["bytes"] and layer["ms"]]
    if not shown:
        return Markup("")
    height, peak = 380, layers[0]["peak_gflops"]
    intensity = [layer["flops"] / layer["bytes"] for _, layer in shown]
    low, high = _decades(intensity)
    floor, ceiling = _decades([*(layer["gflops"] for _, layer in shown), peak])
    x, y = _log(low, high, LEFT, WIDTH - RIGHT), _log(floor, ceiling, height - BOTTOM, TOP)
    parts = [_axes(height, "operations per byte", "GFLOP/s", [(x(t), power(t)) for t in _powers(low, high)],
                   [(y(t), power(t)) for t in _powers(floor, ceiling)])]
    speeds = {layer["bandwidth"] for _, layer in shown}
    for speed, label in dict.fromkeys([(max(speeds), "cache"), (min(speeds), "memory")]) if len(speeds) > 1 else [(*speeds, "")]:
        begin, knee = max(low, floor / speed * 1e9), peak / speed * 1e9
        if begin < min(knee, high):
            end = min(knee, high)
            x1, y1, x2, y2 = x(begin), y(begin * speed * 1e-9), x(end), y(end * speed * 1e-9)
            parts.append(_line(x1, y1, x2, y2, "roof"))
            slope = math.degrees(math.atan2(y2 - y1, x2 - x1))
            along = f"translate({(x1 + x2) / 2:.1f} {(y1 + y2) / 2:.1f}) rotate({slope:.1f}) translate(0 -6)"
            parts.append(Markup('<text class="middle" transform="{}">{} {:.0f} GB/s</text>').format(along, label, speed * 1e-9))
    parts.append(_line(LEFT, y(peak), WIDTH - RIGHT, y(peak), "roof"))
    parts.append(_text(WIDTH - RIGHT, y(peak) - 6, f"peak {peak:.0f} GFLOP/s", "end"))
    marks = []
    for (place, layer), at in zip(shown, intensity):
        radius = 3 + 22 * math.sqrt(layer["share"])
        label = (f"{layer['name']}: {layer['op_type']}, {layer['gflops']:.0f} GFLOP/s, {layer['of_roof']:.0%} of its roof "
                 f"({layer['bound']}), {layer['ms']:.3f} ms")
        marks.append(_mark(x(at), y(layer["gflops"]), radius, f"layer-{place}", label, layer["name"],
                           "point" if layer["bound"] == "compute" else "point hollow"))
    slow = max((layer for _, layer in shown), key=lambda layer: layer["ms"] - layer["least_ms"])
    summary = (f"Roofline of {len(shown)} layers, peak {peak:.0f} GFLOP/s. The layer that loses most time against its roof is "
               f"{slow['name']}: {slow['gflops']:.0f} of {slow['roof_gflops']:.0f} GFLOP/s.")
    return _svg(height, summary, parts, marks)


def arena(memory: dict) -> Markup:
    """Blocks of the arena over the steps of the run, and the bytes in use."""
    steps, total = len(memory["nodes"]), memory["arena_bytes"]
    if not steps or not total:
        return Markup("")
    height, (unit, name) = 340, next((u for u in ((1 << 20, "MiB"), (1 << 10, "KiB")) if total >= 4 * u[0]), (1, "B"))
    x, y = _linear(0, steps, LEFT, WIDTH - RIGHT), _linear(0, total, height - BOTTOM, TOP)
    parts = [_axes(height, "step of the plan", "place in the arena", [(x(t), str(t)) for t in _rounds(0, steps)],
                   [(y(t * unit), f"{t} {name}") for t in _rounds(0, total / unit)])]
    marks = []
    for place, block in enumerate(memory["blocks"]):
        begin, end = x(block["first"]), x(block["last"] + 1)
        top, bottom = y(block["offset"] + block["bytes"]), y(block["offset"])
        label = (f"{block['node']}: {size(block['bytes'])} at {size(block['offset'])}, steps {block['first']} to {block['last']}")
        shape = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            begin, top, max(end - begin, 0.5), max(bottom - top, 0.5))
        marks.append(_link(shape, f"block-{place}", label, block["node"], f"block hue{place % 4}"))
    curve = " ".join(f"{x(step):.1f},{y(live):.1f} {x(step + 1):.1f},{y(live):.1f}" for step, live in enumerate(memory["live"]))
    after = [Markup('<polyline class="live" points="{}"/>').format(curve)]
    peak = memory["peak_step"]
    summary = (f"Memory over {steps} steps: the arena takes {size(total)}; most, {size(memory['live'][peak])}, is in use at step "
               f"{peak} ({memory['nodes'][peak]}). Without sharing it would be {size(memory['unshared_bytes'])}.")
    return _svg(height, summary, parts, marks, after)


def errors(layers: Sequence[dict]) -> Markup:
    """Errors against float64 along the graph, infold's and onnxruntime's."""
    known = [layer for layer in layers if layer["error"] is not None]
    values = [e for layer in known for e in (layer["error"], layer["onnxruntime_error"]) if e]
    if not values:
        return Markup("")
    height = 300
    floor, ceiling = _decades(values)
    x, y = _linear(-0.5, len(layers) - 0.5, LEFT, WIDTH - RIGHT), _log(floor, ceiling, height - BOTTOM, TOP)
    parts = [_axes(height, "value, in graph order", "error", [(x(t), str(t + 1)) for t in _rounds(0, len(layers) - 1)],
                   [(y(t), power(t)) for t in _powers(floor, ceiling)])]
    marks = []
    for place, layer in enumerate(layers):
        own, peer = layer["error"], layer["onnxruntime_error"]
        if peer is not None:
            at, level = x(place), y(max(peer, floor))
            parts.append(Markup('<path class="peer" d="M{:.1f} {:.1f}l4 4l-4 4l-4-4z"/>').format(at, level - 4))
        if own is not None:
            label = f"{layer['node']}: {layer['op_type']}, infold's error {own:.1e}"
            label += "" if peer is None else f", onnxruntime's {peer:.1e}"
            marks.append(_mark(x(place), y(max(own, floor)), 3.5, f"value-{place}", label, layer["node"], "point"))
    worst = max(known, key=lambda layer: layer["error"])
    summary = (f"Errors of {len(known)} values against a float64 run, {power(floor)} to {power(ceiling)}; infold's largest is "
               f"{worst['error']:.1e} at {worst['node']}.")
    return _svg(height, summary, parts, marks)


def _svg(height: int, summary: str, parts: Iterable[Markup], marks: Iterable[Markup], after: Iterable[Markup] = ()) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="group" aria-label="{}">{}<g class="marks">{}</g>{}</svg>').format(
        WIDTH, height, summary, Markup("").join(parts), Markup("").join(marks), Markup("").join(after))


def _axes(height: int, across: str, up: str, columns: Sequence[tuple[float, str]], rows: Sequence[tuple[float, str]]) -> Markup:
    """Grid lines with their numbers, and what the axes are."""
    parts = []
    for at, label in columns:
        parts += [_line(at, TOP, at, height - BOTTOM, "grid"), _text(at, height - BOTTOM + 17, label, "middle")]
    for at, label in rows:
        parts += [_line(LEFT, at, WIDTH - RIGHT, at, "grid"), _text(LEFT - 7, at + 4, label, "end")]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 8, across, "middle title"))
    parts.append(Markup('<text class="middle title" transform="translate(13 {:.0f}) rotate(-90)">{}</text>').format(
        (TOP + height - BOTTOM) / 2, up))
    return Markup('<g aria-hidden="true">{}</g>').format(Markup("").join(parts))


def _mark(x: float, y: float, radius: float, target: str, label: str, name: str, kind: str) -> Markup:
    return _link(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/>').format(x, y, radius), target, label, name, kind)


def _link(shape: Markup, target: str, label: str, name: str, kind: str) -> Markup:
    """A mark that leads to its row in the table."""
    return Markup('<a class="{}" href="#{}" data-name="{}" aria-label="{}">{}<title>{}</title></a>').format(
        kind, target, name, label, shape, label)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<path class="{}" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, text)


def _linear(low: float, high: float, begin: float, end: float) -> Scale:
    return lambda value: begin + (value - low) / ((high - low) or 1) * (end - begin)


def _log(low: float, high: float, begin: float, end: float) -> Scale:
    linear = _linear(math.log10(low), math.log10(high), begin, end)
    return lambda value: linear(math.log10(value))


def _decades(values: Iterable[float]) -> tuple[float, float]:
    """The powers of ten around the positive ones of the values."""
    exponents = [math.log10(value) for value in values if value > 0]
    low, high = math.floor(min(exponents)), math.ceil(max(exponents))
    return 10.0**low, 10.0 ** max(high, low + 1)


def _powers(low: float, high: float) -> list[float]:
    """At most nine powers of ten from low to high."""
    exponents = range(round(math.log10(low)), round(math.log10(high)) + 1)
    return [10.0**exponent for exponent in exponents[:: -(-len(exponents) // 9)]]


def _rounds(low: int, high: float) -> list[int]:
    """At most nine whole numbers from low to high, 1, 2, 5, 10, ... apart."""
    wanted = (high - low) / 8
    step = next(step for exponent in range(12) for step in (10**exponent, 2 * 10**exponent, 5 * 10**exponent) if step >= wanted)
    return [low + step * place for place in range(int((high - low) / step) + 1)]
