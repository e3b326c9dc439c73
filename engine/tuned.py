"""What `infold tune` has found, kept between processes: a small JSON file for each graph, shape, machine and precision.

The files lie in `infold/tune` in the user's cache folder and may be deleted at any time. What is in one is only ever a choice among
algorithms that the planner offers anyway, so a wrong file can make a session slower, but not wrong.
"""
from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .compiled import machine
from .files import sha256, write

if TYPE_CHECKING:
    import onnx_ir as ir

    from .plan.options import PlanOptions

MOST = 1 << 24  # bytes of a file that is read


def folder() -> Path:
    """Where the files lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "infold" / "tune"


def key(nodes: Iterable[ir.Node], shapes: Mapping[str, Iterable[int]], options: PlanOptions) -> dict:
    """What a choice holds for: the graph (not the values of its weights), the shapes of its inputs, and all that decides how fast
    an algorithm is."""
    from .report.machine import cpu_name

    graph = [(n.domain, n.op_type, n.name, [v and v.name for v in n.inputs], [v.name for v in n.outputs],
              sorted((a.name, repr(a.value)) for a in n.attributes.values() if isinstance(a.value, (int, float, str, list, tuple))))
             for n in nodes]
    return {**machine(options.isa), "cpu": cpu_name(), "threads": options.threads, "precision": options.precision,
            "graph": sha256(repr(graph).encode()).hexdigest(), "shapes": {name: list(s) for name, s in shapes.items()}}


def path_of(wanted: Mapping) -> Path:
    """The file for a key."""
    return folder() / f"{sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:32]}.json"


def keep(wanted: Mapping, algorithms: Mapping[str, str]) -> Path:
    """Write the choice for a key; returns the file."""
    path = path_of(wanted)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"key": wanted, "algorithms": algorithms}, indent=1)
    write(path, lambda made: made.write_text(text))
    return path


def look_up(nodes: Iterable[ir.Node], shapes: Mapping[str, Iterable[int]], options: PlanOptions) -> dict[str, str]:
    """The algorithm of each node, as far as there is a choice for exactly this; a damaged file is ignored with a warning."""
    try:
        if not any(folder().iterdir()):
            return {}
    except (OSError, RuntimeError):  # there is none, or no home
        return {}
    wanted = key(nodes, shapes, options)
    path = path_of(wanted)
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(MOST))
        if json.dumps(found["key"], sort_keys=True) != json.dumps(wanted, sort_keys=True):
            raise ValueError("it is for something else")
        return {name: way for name, way in found["algorithms"].items() if isinstance(way, str)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        warnings.warn(f"{path}: ignored, run `infold tune` again: {error!r}", stacklevel=2)
        return {}
