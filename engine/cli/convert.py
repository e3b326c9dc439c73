"""`infold convert`: any model infold can read to .onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infold.cli import common


def convert(
    model: common.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx to write.", show_default=False)],
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    as_json: common.Json = False,
) -> None:
    """Convert a model to ONNX, unchanged in what it computes."""
    from infold.cli import files

    with common.working(f"Converting {model}"):
        loaded = files.load(model, shapes, weights)
        files.write_model(loaded, output, source=model)
    nodes, opset = len(loaded.graph), loaded.opset_imports.get("")
    facts = {"model": str(model), "written": str(output), "nodes": nodes, "opset": opset}
    common.answer(as_json, facts, lambda: common.out().print(f"{nodes} nodes, opset {opset}, written to {output}"))
