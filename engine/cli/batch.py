"""`infold batch`: a model over many pictures, to Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from infold.cli import common


def batch(
    model: common.Model,
    pictures: Annotated[
        str, typer.Option("--input", "-i", metavar="PATTERN", help="Pictures: 'a/**/*.jpg', or a folder.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder of the parts.", show_default=False)],
    preprocess: common.Preprocessing,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="One process here, or actors of a Ray cluster.")] = "local",
    size: Annotated[
        int | None, typer.Option("--batch", "-b", min=1, help="Batch size, where the model leaves it open.", show_default="8")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a part.")] = 1024,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Actors of engine ray.", show_default="as many as there are CPUs for")
    ] = None,
    threads: common.Threads = 0,
    precision: common.Precision = "highest",
    training_mode: common.TrainingMode = "error",
    as_json: common.Json = False,
) -> None:
    """Run a model over many pictures; parts that are written already are not computed again."""
    from dataclasses import asdict

    import infold
    from infold.batch.job import run
    from infold.cli import files
    from infold.preprocess.pictures import find

    options = infold.SessionOptions(intra_op_num_threads=threads, precision=precision, training_mode=training_mode)
    declared, found = files.preprocessing(preprocess), find(pictures)
    with common.progress(f"Running {model}") as advance:
        summary = run(model, found, output, declared, batch=size, rows=rows, engine=engine, options=options, workers=workers,
                      progress=advance)
    if as_json:
        common.print_json({"model": str(model), "written": output, **asdict(summary)})
    else:
        resumed = f", {summary.resumed} of them by an earlier run" if summary.resumed else ""
        common.out().print(f"{summary.rows} rows in {summary.parts} part(s) in {output}{resumed}; {summary.unreadable} unreadable")
