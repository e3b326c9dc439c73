"""`infold exec`: run a program that uses onnxruntime on infold, unchanged."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from infold.cli import common


def exec(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="The program and its arguments.", show_default=False)],
) -> None:
    """Run a program in which `import onnxruntime` gives infold; it and what it starts in Python need not be changed."""
    from infold.integrations import path

    [folder] = path.__path__
    beside = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [folder, beside]))}
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        common.err().print(f"infold: error: {command[0]}: {error.strerror}")
        raise typer.Exit(2) from error
