"""Which operators run natively, for which data types, and what sends them to the fallback: read off the code that decides it."""
from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import onnx
import onnx_ir as ir

from ..control import CONTROL
from ..ops import base, composed
from ..plan.facts import RANDOM
from ..plan.tensor import ANY, INTEGERS, NUMBERS

GROUPS = (("any", ANY), ("all numbers", NUMBERS), ("all numbers, bool", (*NUMBERS, "b8")), ("integers", INTEGERS))


@dataclass(frozen=True)
class Operator:
    """One operator of ONNX. versions: opsets in which it changed; types: of the native form, empty if there is none; composed:
    planned as the nodes of a body;
    conditions: the reasons that send a node to the fallback nevertheless, with "…" for what depends on the node."""

    name: str
    versions: tuple[int, ...]
    types: tuple[str, ...]
    conditions: tuple[str, ...]
    composed: bool

    @property
    def native(self) -> bool:
        return bool(self.types) or self.composed

    def to_dict(self) -> dict:
        return {**asdict(self), "native": self.native}


def operators() -> list[Operator]:
    """Every operator of the domain ai.onnx that the installed onnx knows, by name."""
    versions: dict[str, list[int]] = {}
    defined = set()
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain and not schema.deprecated:
            versions.setdefault(schema.name, []).append(schema.since_version)
            if (schema.has_function or schema.has_context_dependent_function) and schema.name not in RANDOM:
                defined.add(schema.name)
    out = []
    for name in sorted(versions):
        node = ir.node(name, [])
        op, body = base.find(node), composed.find(node)
        last = body or (None if op is None else op.lower)  # who is asked last before the fallback
        conditions = () if last is None else tuple(sorted(set(_reasons(last))))
        types = ANY if name in CONTROL else () if op is None else op.types
        out.append(Operator(name, tuple(sorted(versions[name])), types, conditions,
                            not types and (body is not None or name in defined)))
    return out


def markdown() -> str:
    """The page docs/operators.md."""
    rows = operators()
    lines = [
        "# Operators", "",
        f"Made by `infold info --operators` from the code, with onnx {onnx.__version__}. What has no native form, or not for",
        "this node, runs in the reference fallback, with the reason in `session.report` and in `infold profile`; so do",
        "strings, sequences and optionals. Models in float16 and bfloat16 are computed in float32; an If is planned as",
        "the branch it chooses, Loop and Scan run around bodies that have plans of their own. What is left to the fallback is",
        "rare: no step of a model of the tests (`tests/models/test_profile.py`).", "",
        f"{sum(row.native for row in rows)} of {len(rows)} operators have a native form. *Versions* are the opsets that",
        "changed the operator; *types* those of its first input and output; *falls back for* lists what the native form",
        "leaves to the fallback (… depends on the node). *As others*: the operator is planned as the nodes of a body,",
        "ONNX's own or one in `ops/composed.py`.", "",
        "| operator | versions | native types | falls back for |", "|---|---|---|---|",
    ]
    for row in rows:
        conditions = "; ".join(row.conditions).replace("|", "\\|")
        native = _types(row.types) or ("as others" if row.composed else "none")
        lines.append(f"| {row.name} | {', '.join(map(str, row.versions))} | {native} | {conditions} |")
    return "\n".join(lines) + "\n"


def _types(types: tuple[str, ...]) -> str:
    group = next((name for name, members in GROUPS if types == members), None)
    return group or ", ".join("bool" if t == "b8" else t for t in types)


def _reasons(function: Callable) -> Iterator[str]:
    """Messages of every `raise NotNative(...)` in the function and in what it calls of its own module."""
    functions = {node.name: node for node in ast.walk(ast.parse(inspect.getsource(sys.modules[function.__module__])))
                 if isinstance(node, ast.FunctionDef)}
    todo, done = [function.__name__], set()
    while todo:
        name = todo.pop()
        if name in done or name not in functions:
            continue
        done.add(name)
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                todo.append(node.func.id)
                if node.func.id == "NotNative" and node.args:
                    yield _text(node.args[0])


def _text(message: ast.expr) -> str:
    """A string or f-string with its fields as dots."""
    if isinstance(message, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in message.values)
    return str(message.value) if isinstance(message, ast.Constant) else "…"
