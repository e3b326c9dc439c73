"""How close the layers of models come to the machine's roofline: convolutions, pooling, elementwise work, norms.

    python bench/kernels.py --zoo build/zoo [NAME ...] [--isa avx512 ...] [--precision highest] [--algorithm direct] [--threads 1]
        [--rounds 5] [--least 0.01] [--json out.json] [--plot out.svg]

Layers run in their place in the model (optimised export), with what they read wherever the layers before left it. For each: best
time of several rounds, GFLOP/s, GB/s (input, weights and output, each once) and the fraction of its roof (`infold.report.layers`):
the longer of the time that its multiply-adds take at the measured peak, and of the time that its bytes take in a copy between
arrays as large, over its own. Layers of one shape are one line, with how many there are. An algorithm with fewer multiplications
(Winograd) is counted with those of the plain convolution, and may pass its roof. Then the sums by kind of layer.
"""
from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import plots
import selection

import infold
from infold import _native
from infold.passes.context import node_name
from infold.report.layers import Layer, layers

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Row:
    """Layers of one shape, or of one kind: how many, milliseconds of all, those that the roof would take, and work."""

    name: str
    kind: str
    kernels: str
    count: int
    ms: float
    least_ms: float
    gflop: float
    gb: float
    bound: str

    @property
    def of_roof(self) -> float:
        return self.least_ms / self.ms

    def __str__(self) -> str:
        return (f"{self.count:>4} x {self.name:<34} {self.kernels:<28} {self.ms:9.3f} {1e3 * self.gflop / self.ms:9.1f} "
                f"{1e3 * self.gb / self.ms:8.1f} {100 * self.of_roof:6.0f} %  {self.bound}")


HEADER = f"{'':41} {'':28} {'ms':>9} {'GFLOP/s':>9} {'GB/s':>8}  of roof"


def described(node: ir.Node | None, layer: Layer) -> tuple[str, str]:
    """(shape, kind) of a layer: "64->128 3x3/2 @56" and "3x3", "depthwise" or the operator's name."""
    out = () if node is None or node.outputs[0].shape is None else tuple(node.outputs[0].shape)
    size = "x".join(map(str, out[2:]))
    if node is None or node.op_type != "Conv" or node.domain or node.inputs[1].shape is None:
        return f"{layer.op_type} {'x'.join(map(str, out))}", layer.op_type
    filters, depth, *kernel = node.inputs[1].shape
    groups = node.attributes.get_int("group", 1)
    stride = max(node.attributes.get_ints("strides", [1]))
    window = "x".join(map(str, kernel))
    kind = "pointwise" if prod(kernel) == 1 else window
    if groups > 1:
        kind = "depthwise" if depth == 1 and groups == filters else f"grouped {kind}"
    name = f"{depth * groups}->{filters} {window}/{stride}" + (f" g{groups}" if groups > 1 else "")
    return f"{name} @{size}", kind


def measure(path: Path, rounds: int, **options) -> list[Row]:
    """Every layer of a model in its place: best of rounds of three runs each. options: of the session."""
    session = infold.InferenceSession(path, infold.SessionOptions(**options))
    rng = np.random.default_rng(0)
    shapes = {i.name: [d if isinstance(d, int) else 1 for d in i.shape] for i in session.get_inputs()}
    feeds = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    best: dict[str, Layer] = {}
    for _ in range(rounds):
        for layer in layers(session, feeds, runs=3):
            seen = best.get(layer.name, layer)
            best[layer.name] = replace(layer, ms=min(seen.ms, layer.ms), peak=max(seen.peak, layer.peak),
                                       bandwidth=max(seen.bandwidth, layer.bandwidth))
    nodes = {node_name(node): node for node in session.model.graph.all_nodes()}
    alike: dict[tuple[str, str], list[Layer]] = defaultdict(list)
    for layer in best.values():
        if layer.ms:
            alike[described(nodes.get(layer.name), layer)].append(layer)
    return [_row(name, kind, found) for (name, kind), found in alike.items()]


def _row(name: str, kind: str, found: Sequence[Layer]) -> Row:
    longest = max(found, key=lambda layer: layer.ms)
    return Row(name, kind, longest.kernels, len(found), sum(f.ms for f in found), sum(f.least_ms for f in found),
               1e-9 * sum(f.flops for f in found), 1e-9 * sum(f.bytes for f in found), longest.bound)


def merged(name: str, rows: Iterable[Row]) -> Row:
    rows = list(rows)
    sums = {key: sum(getattr(r, key) for r in rows) for key in ("count", "ms", "least_ms", "gflop", "gb")}
    return Row(name, name, "", **sums, bound=max(rows, key=lambda r: r.ms).bound)


def by_kind(rows: Iterable[Row]) -> list[Row]:
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        kinds[row.kind].append(row)
    return sorted((merged(kind, found) for kind, found in kinds.items()), key=lambda r: -r.ms)


def show(results: Mapping[str, Sequence[Row]], least: float) -> None:
    """least: share of a model's time from which on a line is shown."""
    for name, rows in results.items():
        total = merged("all layers", rows)
        print(f"\n{name}\n{HEADER}")
        for row in rows:
            if row.ms >= least * total.ms:
                print(row)
        worst = max(rows, key=lambda r: r.ms - r.least_ms)
        print(f"{total}\n       farthest from its roof: {worst.name}, {worst.ms - worst.least_ms:.3f} ms, {worst.bound}")
    print(f"\nall models, by kind of layer\n{HEADER}")
    for row in by_kind(r for rows in results.values() for r in rows):
        print(row)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = selection.parser(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--isa", nargs="*", help="instruction sets to measure (default: the best of this CPU)")
    parser.add_argument("--precision", default="highest", choices=("highest", "high", "medium"))
    parser.add_argument("--algorithm", help='for every layer that can ("direct", "bf16", ...); default: the planner chooses')
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--least", type=float, default=0.01, help="share of a model's time from which on a layer is shown")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--plot", type=Path, help="draw the roofline of the last instruction set there, as SVG")
    args = parser.parse_args(arguments)
    written = {}
    for isa in args.isa or _native.isa_names()[:1]:
        os.environ["INFOLD_ISA"] = isa
        print(f"\n{isa}, {args.threads} thread(s), precision {args.precision}")
        results = {name: measure(kinds.get("opt") or next(iter(kinds.values())), args.rounds, intra_op_num_threads=args.threads,
                                 precision=args.precision, algorithms={"*": args.algorithm} if args.algorithm else {})
                   for name, kinds in selection.models(args).items()}
        show(results, args.least)
        written[isa] = {name: [asdict(row) for row in rows] for name, rows in results.items()}
    if args.json:
        args.json.write_text(json.dumps(written, indent=1))
    if args.plot:
        plots.roofline([row for rows in written[isa].values() for row in rows], args.plot)


if __name__ == "__main__":
    main()
