"""`infold compile`: packed weights and plans for this CPU, in a file that is mapped and ready."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from infold.cli import common


def compile(
    model: common.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .infold to write.", show_default=False)],
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="NAME=1x3x224x224",
            help="The shape of an input that the model leaves open; given again for the same input, for one more plan.",
            show_default=False,
        ),
    ] = None,
    weights: common.Weights = None,
    preprocess: common.Preprocessing = None,
    precision: common.Precision = "highest",
    training_mode: common.TrainingMode = "error",
    fallback: Annotated[
        bool, typer.Option("--fallback/--no-fallback", help="Add the folded model, for other shapes, CPUs and versions.")
    ] = True,
    as_json: common.Json = False,
) -> None:
    """Compile a model for this CPU, so that a session starts in milliseconds."""
    import infold
    from infold.cli import files

    if output.suffix.lower() != ".infold":
        raise typer.BadParameter("the output must end in .infold: that is how it is recognised")
    files.refuse_overwriting(output, source=model)
    with common.working(f"Compiling {model}"):
        loaded = files.load(model, shapes, weights, runs=True)
        declared = files.preprocessing(preprocess)
        options = infold.SessionOptions(precision=precision, training_mode=training_mode, preprocess=declared)
        facts = infold.compile(loaded, output, by_plan(shapes), options, fallback)
    facts = {"model": str(model), "written": str(output), **facts}
    if as_json:
        common.print_json(facts)
    else:
        common.out().print(f"{facts['plans']} plan(s), {facts['steps']} steps, {facts['weight_bytes'] / 2**20:.1f} MiB of weights; "
                           f"{facts['bytes'] / 2**20:.1f} MiB written to {output}")


def by_plan(texts: Sequence[str] | None) -> list[dict[str, tuple[int, ...]]]:
    """Shapes by input for each plan: an input that comes again begins the next."""
    from infold.cli import files

    plans: list[dict[str, tuple[int, ...]]] = []
    for text in texts or []:
        (name, shape), = files.parse_shapes([text]).items()
        if not plans or name in plans[-1]:
            plans.append({})
        plans[-1][name] = shape
    return plans
