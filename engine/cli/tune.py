"""`infold tune`: measure the algorithms of every layer once, and keep the fastest for the sessions to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infold.cli import common

if TYPE_CHECKING:
    from infold.report.tune import TuneReport


def tune(
    model: common.Model,
    inputs: common.Inputs = None,
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    threads: common.Threads = 0,
    precision: common.Precision = "highest",
    training_mode: common.TrainingMode = "error",
    rounds: common.Rounds = 10,
    as_json: common.Json = False,
) -> None:
    """Measure the algorithms of every layer on this machine; sessions of the same shapes, threads and precision use the fastest."""
    import infold
    from infold.cli import files

    with common.progress(f"Tuning {model}") as advance:
        loaded = files.load(model, shapes, weights, runs=True)
        feeds = files.read_inputs(loaded, inputs, files.parse_shapes(shapes))
        options = infold.SessionOptions(intra_op_num_threads=threads, precision=precision, training_mode=training_mode)
        report = infold.tune(loaded, feeds, options, rounds, advance)
    common.answer(as_json, {"model": str(model), **report.to_dict()}, lambda: show(report))


def show(report: TuneReport) -> None:
    """Print the nodes that another algorithm computes faster than the planned one, and what that gives."""
    table = common.table("node", "planned", "fastest", "ms of each")
    changed = [node for node in report.nodes if node.best != node.planned]
    for node in changed:
        times = ", ".join(f"{name} {ms:.4f}" for name, ms in sorted(node.ms.items(), key=lambda item: item[1]))
        table.add_row(node.name, node.planned, node.best, times)
    console = common.out()
    if changed:
        console.print(table)
    low, high = report.interval
    console.print(f"{len(changed)} of {len(report.nodes)} nodes are faster another way; the model: {report.planned_ms:.3f} ms as "
                  f"planned, {report.tuned_ms:.3f} ms as measured ({report.ratio:.3f} times as fast, 95 % interval "
                  f"{low:.3f}-{high:.3f})")
    console.print(f"{'kept' if report.kept else 'not faster: the plan stays'}; {report.threads} thread(s), {report.precision}, "
                  f"{report.isa}; {report.path}")
