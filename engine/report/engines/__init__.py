"""The engines a benchmark knows, each in a file of its own and prepared in its best documented form.

A preparing function takes the path of an .onnx file, the feeds (whose shapes the engine may fix) and a thread count,
and returns a `Prepared`; `@engine` registers it. `NAME@WAY` is the engine NAME at another precision than float32 with
its ordinary error: it is timed only when asked for by name.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """A model ready to run in one engine."""

    run: Callable[[], list[np.ndarray]]  # one inference on the feeds it was prepared with; outputs in graph order
    version: str
    precision: str


ENGINES: dict[str, Callable[[str, Feeds, int], Prepared]] = {}
_MODULES: dict[str, str] = {}


def engine(name: str, module: str) -> Callable:
    """Register a preparing function for the engine `name`, installed if `module` can be imported."""

    def register(prepare: Callable[[str, Feeds, int], Prepared]) -> Callable[[str, Feeds, int], Prepared]:
        ENGINES[name], _MODULES[name] = prepare, module
        return prepare

    return register


def installed(every: bool = False) -> list[str]:
    """The engines that can be imported here, infold first; with `every`, also those at other precisions (`NAME@WAY`)."""
    return [
        name for name, module in _MODULES.items() if (every or "@" not in name) and importlib.util.find_spec(module) is not None
    ]


from infold.report.engines import infold, onnxruntime, openvino, ncnn, mnn, tract  # noqa: E402, F401, I001  (in the order of tables)
