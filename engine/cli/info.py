"""`infold info`: what this machine offers, or what is in a model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from infold.cli import common


def info(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help="Describe this model.", show_default=False)] = None,
    shapes: common.Shapes = None,
    weights: common.Weights = None,
    operators: Annotated[bool, typer.Option("--operators", help="Which operators run natively, as Markdown.")] = False,
    as_json: common.Json = False,
) -> None:
    """Describe this machine as infold sees it, or a model, or the operators."""
    if operators:
        from infold.report import operators as table

        if as_json:
            common.print_json([row.to_dict() for row in table.operators()])
        else:
            typer.echo(table.markdown(), nl=False)
        return
    from infold.report import machine

    facts = machine.facts() if model is None else model_facts(model, shapes, weights)
    common.answer(as_json, facts, lambda: _show(facts))


def model_facts(path: Path, shapes: list[str] | None, weights: Path | None) -> dict:
    """Opset, inputs, outputs, operators, parameters, BatchNorms, and the operators of what runs in the fallback.

    The fallback is known once all shapes are: None for a model with open dimensions that `shapes` does not fill.
    """
    import infold
    from infold.cli import files
    from infold.report.inputs import random_inputs

    with common.working(f"Reading {path}"):
        model = files.load(path, shapes, weights, runs=True)
        _, report = infold.fold(model)
        session = infold.InferenceSession(model, infold.SessionOptions(training_mode="batch"))
        try:
            session.run(None, random_inputs(model, files.parse_shapes(shapes)))
            fallback = sorted({item.op_type for item in session.report.fallbacks})
        except infold.InvalidInputError:
            if shapes:
                raise
            fallback = None
    operators = Counter(node.op_type if not node.domain else f"{node.domain}::{node.op_type}" for node in model.graph.all_nodes())
    parameters = sum(value.const_value.size for value in model.graph.initializers.values())
    return {
        "model": str(path),
        "producer": model.producer_name,
        "opsets": dict(model.opset_imports),
        "inputs": [_argument(argument) for argument in session.get_inputs()],
        "outputs": [_argument(argument) for argument in session.get_outputs()],
        "nodes": operators.total(),
        "operators": dict(operators.most_common()),
        "parameters": parameters,
        "batchnorms": report.batchnorms,
        "folded": report.folded,
        "fallback": fallback,
    }


def _argument(argument) -> dict:
    return {"name": argument.name, "shape": list(argument.shape), "type": argument.type}


def _show(facts: dict) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        table.add_row(key, _text(key, value))
    common.out().print(table)


def _text(key: str, value) -> str:
    if key == "fallback" and value is None:
        return "known when the open dimensions are: give --shape"
    if key in ("inputs", "outputs"):
        return "\n".join(f"{item['name']}  {'x'.join(map(str, item['shape']))}  {item['type']}" for item in value)
    if key == "faster":
        return "\n".join(value) or "nothing that infold knows of"
    if key == "caches":
        return ", ".join(f"{name} {size // 1024} KiB" for name, size in value.items())
    if isinstance(value, dict):
        return ", ".join(f"{name or 'ai.onnx'} {item if item is not None else 'not installed'}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value or "-")
