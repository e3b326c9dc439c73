"""What the commands share: the arguments most of them take, where text goes, progress, and JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from infold.report.plain import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The model file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Threads = Annotated[
    int, typer.Option("--threads", "-t", min=0, help="Threads; 0 means every CPU this process may use.")
]
EngineThreads = Annotated[int, typer.Option("--threads", "-t", min=1, help="Threads for each engine.")]
Engines = Annotated[
    list[str] | None,
    typer.Option("--engine", "-e", help="An engine to compare with; may be repeated.", show_default="all installed"),
]
Batch = Annotated[int | None, typer.Option("--batch", "-b", min=1, help="Batch size, where the model leaves it open.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds of timing; every engine or candidate has one turn in each.")]
Seconds = Annotated[float, typer.Option(min=0.0, help="Time for each turn.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="[NAME=]FILE",
        help="NAME=x.npy, an .npz with every input, a picture (`run --preprocess`), or `random`.",
        show_default="random",
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        "--input-shape",
        metavar="NAME=1x3x224x224",
        help="The shape of an input, where the model leaves it open; may be repeated.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="The .caffemodel of a .prototxt, if it is not beside it.",
                 show_default=False),
]
Preprocessing = Annotated[
    Path | None,
    typer.Option("--preprocess", metavar="FILE", help="What is done to pictures, in TOML or JSON.", show_default=False),
]
Precision = Annotated[Literal["highest", "high", "medium"], typer.Option(help="How much error products may have.")]
TrainingMode = Annotated[
    Literal["error", "running", "batch"],
    typer.Option(
        "--training-mode",
        help="BatchNorms exported in training mode: refuse them, use their running statistics, or the batch's.",
    ),
]


def out() -> Console:
    """The console for results: standard output, wide where it is no terminal and COLUMNS does not say otherwise."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return Console(width=width, highlight=False, markup=False, emoji=False)


def err() -> Console:
    """The console for progress and remarks: standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def table(*columns: str, numbers: Sequence[str] = (), title: str | None = None) -> Table:
    """An empty table with columns of text, then columns of numbers, which stand to the right."""
    from rich.table import Table

    made = Table(*columns, title=title)
    for column in numbers:
        made.add_column(column, justify="right")
    return made


@contextmanager
def working(message: str) -> Iterator[None]:
    """Show a spinner with `message` on a terminal's standard error while the block runs."""
    with err().status(message):
        yield


@contextmanager
def progress(message: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on a terminal's standard error; yields `advance(done, total)`, total None while unknown."""
    with stages() as advance:
        advance(message, 0, None)
        yield lambda done, total: advance(message, done, total)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int | None], None]]:
    """As `progress`, for work in several parts: yields `advance(message, done, total)`, with a bar for each message."""
    from rich.progress import Progress

    console, tasks = err(), {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:

        def advance(message: str, done: int, total: int | None) -> None:
            if message not in tasks:
                tasks[message] = bar.add_task(message, total=None)
            bar.update(tasks[message], completed=done, total=total)

        yield advance


def answer(as_json: bool, document: Any, show: Callable[[], None]) -> None:
    """Print the document as JSON, or have it shown as text."""
    if as_json:
        print_json(document)
    else:
        show()


def print_json(document: Any) -> None:
    """Print `document` as strict JSON: NumPy scalars become numbers, NaN and infinities null."""
    print(json.dumps(plain(document), indent=2, allow_nan=False))
