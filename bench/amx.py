"""What the AMX kernels execute in one run of each model: counts, not times, so that they need no CPU with AMX.

    python bench/amx.py MODEL.onnx ... [--precision medium high highest] [--json OUT.json]

The planner chooses as it would with AMX, and tests/native/amx_trap.c executes and counts the instructions. For each model and
precision: the share of the multiply-adds that AMX does; of those, the share of tile products that is of use if each counts as 16
rows, and as the rows it has (the rest are columns and depth that fill no tile); tile loads for each product; and the share of the
peak that the tile instructions alone allow (see `clocks` there: 16 cycles a product, whatever its rows), all data in the
first-level cache. Then what a model of that cache says, in which the rows of tiles, and nothing else, push out what was used least
recently: bytes that tiles ask of the second level for each cycle of products, and the share of the peak if it gives 48 a cycle:
if all that follows a store waits for it, and if nothing does.
"""
from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "native"))

import amx_trap

ROW_MACS = 16 * 32  # of a row of a tile product
PRODUCTS = {"medium": 1, "high": 3, "highest": 6}
COLUMNS = ("model", "precision", "on AMX", "of use", "by rows", "loads a product", "of AMX peak",
           "of the second level, bytes a cycle", "of peak then", "overlapped")
HEADER = "| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|"


def counted(path: str, precision: str) -> dict[str, float]:
    """Counts of one run, on one thread."""
    import numpy as np

    import infold

    session = infold.InferenceSession(path, infold.SessionOptions(intra_op_num_threads=1, precision=precision, tuned=False))
    rng = np.random.default_rng(1)
    feeds = {x.name: rng.standard_normal([n if isinstance(n, int) else 1 for n in x.shape]).astype(np.float32)
             for x in session.get_inputs()}
    before = amx_trap.counts()
    session.run(None, feeds)
    found: dict[str, float] = {name: n - before[name] for name, n in amx_trap.counts().items()}
    steps = [step for plan in session.runner.plans for step in plan.steps]
    macs = sum(step.flops for step in steps if step.op.name == "conv_bf16") / 2
    useful, products = macs * PRODUCTS[precision], max(1, found["dot"])
    return {**found, "macs": macs, "on_amx": 2 * macs / sum(step.flops for step in steps),
            "of_use": useful / (16 * ROW_MACS * products), "by_rows": useful / (ROW_MACS * max(1, found["row"])),
            "loads": found["load"] / products, "of_peak": useful / (ROW_MACS * max(1, found["cycles"])),
            "from_second": 64 * found["missed"] / (16 * products),
            **{f"of_peak_{name}": useful / (ROW_MACS * max(1, found[name])) for name in ("cached", "overlapped")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--precision", nargs="+", choices=PRODUCTS, default=list(PRODUCTS))
    parser.add_argument("--json", metavar="OUT.json", help="write all counts here")
    arguments = parser.parse_args()
    if not amx_trap.trapped():
        if problem := amx_trap.obstacle():
            sys.exit(problem)
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(amx_trap.run(Path(folder), __file__, *sys.argv[1:], capture_output=False).returncode)
    results = {}
    print(HEADER)
    for path in arguments.models:
        for precision in arguments.precision:
            r = results[f"{Path(path).stem}:{precision}"] = counted(path, precision)
            print(f"| {Path(path).stem} | {precision} | {r['on_amx']:.0%} | {r['of_use']:.0%} | {r['by_rows']:.0%} "
                  f"| {r['loads']:.2f} | {r['of_peak']:.0%} "
                  f"| {r['from_second']:.0f} | {r['of_peak_cached']:.0%} | {r['of_peak_overlapped']:.0%} |", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
