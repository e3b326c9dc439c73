"""Reports for the tests of the page, quickly made."""

from __future__ import annotations

from importlib.resources import files

import onnx

import infold
from infold.cli.common import plain
from infold.report.overview import overview

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}&amp;"


def look(model, engine: str = "infold", **options) -> dict:
    return plain(overview(model, name="net.onnx", engines=[engine], rounds=2, seconds=0.005, runs=2, **options).to_dict())


def renamed(name: str):
    """The demo's LeNet with every node and value called `name` and a number, but for inputs and outputs."""
    model = onnx.load(files("infold.demo") / "lenet.onnx")
    fixed = {value.name for value in (*model.graph.input, *model.graph.output)}
    names: dict[str, str] = {}
    for node in model.graph.node:
        node.name = f"{name}{len(names)}"
        for values in (node.input, node.output):
            for place, value in enumerate(values):
                if value and value not in fixed:
                    values[place] = names.setdefault(value, f"{name}{len(names)}")
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    del model.graph.value_info[:]
    return infold.load(model)
