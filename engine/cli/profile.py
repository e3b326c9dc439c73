"""`infold profile`: where the time of a run goes, step by step."""

from __future__ import annotations

from typing import Annotated

import typer

from infold.cli import common


def profile(
    model: common.Model,
    inputs: common.Inputs = None,
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    threads: common.Threads = 0,
    training_mode: common.TrainingMode = "error",
    runs: Annotated[int, typer.Option(min=1, help="Runs; each step's time is the median.")] = 10,
    top: Annotated[int, typer.Option(min=1, help="Show this many steps, the slowest first.")] = 30,
    as_json: common.Json = False,
) -> None:
    """Show the time of each step of a model, and what ran in the fallback."""
    import infold
    from infold.cli import files

    with common.working(f"Profiling {model}"):
        loaded = files.load(model, shapes, weights, runs=True)
        feeds = files.read_inputs(loaded, inputs, files.parse_shapes(shapes))
        options = infold.SessionOptions(intra_op_num_threads=threads, training_mode=training_mode)
        session = infold.InferenceSession(loaded, options)
        steps = [step.to_dict() for step in session.profile(feeds, runs=runs)]
    total = sum(step["ms"] for step in steps)
    fallback = sum(step["ms"] for step in steps if not step["native"])
    for step in steps:
        step["share"] = step["ms"] / total if total else 0.0
    if as_json:
        common.print_json({"model": str(model), "total_ms": total, "fallback_ms": fallback, "steps": steps})
    else:
        _show(sorted(steps, key=lambda step: -step["ms"])[:top], len(steps), total, fallback)


def _show(slowest: list[dict], count: int, total: float, fallback: float) -> None:
    from rich.table import Table

    table = Table("step", "operator", "kernel")
    for column in ("ms", "share", "GFLOP/s"):
        table.add_column(column, justify="right")
    for step in slowest:
        speed = f"{step['gflops']:.1f}" if step["gflops"] else ""
        table.add_row(step["name"], step["op"], step["kernel"], f"{step['ms']:.4f}", f"{step['share']:.1%}", speed)
    console = common.out()
    console.print(table)
    rest = f"; {count - len(slowest)} faster steps not shown" if count > len(slowest) else ""
    share = fallback / total if total else 0.0
    console.print(f"{total:.3f} ms in {count} steps, {share:.1%} of it in the fallback{rest}")
