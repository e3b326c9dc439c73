"""`infold demo`: what infold does, shown on the models that come with it."""

from __future__ import annotations

from typing import Annotated

import typer

from infold.cli import common


def demo(
    short: Annotated[bool, typer.Option("--short", help="A few seconds instead of the whole tour.")] = False,
    as_json: common.Json = False,
) -> None:
    """Fold, classify, verify and time a small network, then read the text in a picture."""
    from infold import demo as tour

    console = common.err() if as_json else common.out()
    result = tour.run(console, short=short)
    if as_json:
        common.print_json(result)
    if not result["ok"]:
        raise typer.Exit(1)
