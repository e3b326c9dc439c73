"""`infold profile`: where the time of a run goes, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from infold.cli import common

if TYPE_CHECKING:
    from infold.report.layers import Layer

SLOWEST = 30  # layers shown


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
    document = {"model": str(model), "total_ms": total, "fallback_ms": fallback, "steps": steps}
    slowest = sorted(steps, key=lambda step: -step["ms"])[:top]
    common.answer(as_json, document, lambda: _show(slowest, len(steps), total, fallback))


def _show(slowest: list[dict], count: int, total: float, fallback: float) -> None:
    table = common.table("step", "operator", "kernel", numbers=("ms", "share", "GFLOP/s"))
    for step in slowest:
        speed = f"{step['gflops']:.1f}" if step["gflops"] else ""
        table.add_row(step["name"], step["op"], step["kernel"], f"{step['ms']:.4f}", f"{step['share']:.1%}", speed)
    common.out().print(table)
    rest = f"; {count - len(slowest)} faster steps not shown" if count > len(slowest) else ""
    share = fallback / total if total else 0.0
    common.out().print(f"{total:.3f} ms in {count} steps, {share:.1%} of it in the fallback{rest}")


def show_layers(layers: list[Layer]) -> None:
    """Print the slowest layers with their share of the time and of their roof as bars."""
    from rich.bar import Bar

    table = common.table("layer", "operator", "kernels", numbers=("ms", "share"))
    table.add_column("", width=16)
    for column in ("GFLOP/s", "of roof"):
        table.add_column(column, justify="right")
    table.add_column("", width=16)
    largest = max((layer.share for layer in layers), default=0)
    for layer in sorted(layers, key=lambda layer: -layer.ms)[:SLOWEST]:
        speed = f"{layer.gflops:.0f}" if layer.flops else ""
        table.add_row(
            layer.name, layer.op_type, layer.kernels, f"{layer.ms:.3f}", f"{layer.share:.1%}", Bar(largest, 0, layer.share),
            speed, f"{layer.of_roof:.0%}", Bar(1, 0, layer.of_roof),
        )  # fmt: skip
    common.out().print(table)
    rest = f"; {len(layers) - SLOWEST} faster layers not shown" if len(layers) > SLOWEST else ""
    common.out().print(f"{sum(layer.ms for layer in layers):.3f} ms in {len(layers)} layers{rest}")
