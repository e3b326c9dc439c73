"""What the AMX kernels execute for each convolution of a model: counts, not times, so that they need no CPU with AMX.

    python bench/amx.py [MODEL.onnx ...] [--precision medium high highest] [--layers]

Every distinct convolution of the models (default: ResNet-50's) runs once, alone, as the planner chooses for AMX, its instructions
executed and counted by tests/native/amx_trap.c. For each model and precision: the share of the multiply-adds that AMX does; of
those, the share of tile products that is of use if each counts as 16 rows, and as the rows it has (the rest are columns and depth
that fill no tile); tile loads for each product; and the share of the peak that the tile instructions alone allow (see `clock_of`
there: 16 cycles each, whatever its rows), all data in the first-level cache.
"""
from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests" / "native")]

import amx_trap  # noqa: E402
from kernels import RESNET50, Layer, layer_model, layers_of  # noqa: E402

MACS = 16 * 16 * 32  # of a tile product, in 16 cycles
PRODUCTS = {"medium": 1, "high": 3, "highest": 6}


def counted(layer: Layer, precision: str) -> dict:
    """Counts of one run of a layer, and what of it was of use."""
    import numpy as np

    import infold

    session = infold.InferenceSession(layer_model(layer, 1), infold.SessionOptions(intra_op_num_threads=1, precision=precision,
                                                                                  tuned=False))
    x = np.random.default_rng(1).standard_normal((1, layer.channels, layer.size, layer.size)).astype(np.float32)
    before = amx_trap.counts()
    session.run(None, {"x": x})
    found = {name: n - before[name] for name, n in amx_trap.counts().items()}
    return {**found, "layer": str(layer), "macs": layer.flops(1) // 2}


def summary(rows: list[dict], precision: str) -> dict:
    """rows: of `counted`, with the `number` of such layers."""
    tiled = [r for r in rows if r["dot"]]
    total = {name: sum(r["number"] * r[name] for r in tiled) for name in ("dot", "row", "load", "cycles", "macs")}
    useful = total["macs"] * PRODUCTS[precision]
    return {"on_amx": total["macs"] / sum(r["number"] * r["macs"] for r in rows), "macs": total["macs"],
            "useful": useful / max(1, MACS * total["dot"]), "rows": useful / max(1, MACS // 16 * total["row"]), "loads": total["load"] / max(1, total["dot"]),
            "of_peak": useful / max(1, 512 * total["cycles"]), "cycles": total["cycles"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL.onnx")
    parser.add_argument("--precision", nargs="+", choices=PRODUCTS, default=list(PRODUCTS))
    parser.add_argument("--layers", action="store_true", help="each layer, too")
    parser.add_argument("--json", help="write all counts here")
    arguments = parser.parse_args()
    if "AMX_TRAP_SITES" not in amx_trap.os.environ:
        if amx_trap.obstacle():
            sys.exit(amx_trap.obstacle())
        with tempfile.TemporaryDirectory() as folder:
            done = amx_trap.run(Path(folder), __file__, *sys.argv[1:], capture_output=False)
            sys.exit(done.returncode)
    every = {}
    print("| model | precision | on AMX | of use | by rows | loads a product | of AMX peak |\n|---|---|---|---|---|---|---|")
    for path in arguments.models or [""]:
        layers = layers_of(path) if path else RESNET50
        for precision in arguments.precision:
            rows = [{**counted(layer, precision), "number": number} for layer, number in layers.items()]
            s = summary(rows, precision)
            print(f"| {Path(path).stem or 'resnet50'} | {precision} | {s['on_amx']:.0%} | {s['useful']:.0%} | {s['rows']:.0%} "
                  f"| {s['loads']:.2f} | {s['of_peak']:.0%} |", flush=True)
            every[f"{Path(path).stem}:{precision}"] = {**s, "layers": rows}
            for r in rows if arguments.layers else []:
                one = summary([r], precision) if r["dot"] else None
                print(f"    {r['number']:>3} x {r['layer']:<28} {r['macs'] / 1e6:8.1f} M "
                      + (f"useful {one['useful']:.2f} loads {one['loads']:.2f} peak {one['of_peak']:.2f}" if one else "-"))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()
