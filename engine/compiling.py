"""Compiled models, `.infold`, written: a session's packed weights and plans, and the model it is of (compiled.py reads them)."""
from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from .api import InferenceSession, without_cache
from .compiled import FORMAT, LINE, MAGIC, PAGE, PREAMBLE, machine
from .errors import InvalidInputError, UnsupportedError
from .files import sha256, write
from .plan.plan import ControlStep, HostStep, Plan
from .plan.tensor import Tensor
from .ports import Port


def compile(model: object, path: str | os.PathLike, shapes: Iterable[Mapping[str, Iterable[int]]] = (), sess_options=None,
            fallback: bool = True) -> dict:
    """Write a model as folded, packed weights and plans for this CPU; `InferenceSession(path)` maps it and is ready.

    Args:
        model: whatever `InferenceSession` takes.
        shapes: input shapes by name, a dict for each plan, for inputs whose dimensions the model leaves open.
        sess_options: see `SessionOptions`; precision, algorithms and training_mode are compiled in.
        fallback: whether to add the folded model, from which a session is made for other shapes, CPUs and versions.
    Returns:
        {"plans", "steps", "weight_bytes", "bytes"} of what was written.
    Raises:
        UnsupportedError: a plan needs Python at some step, which a file cannot hold; names the node.
        InvalidInputError: a shape is missing or does not fit the model.
    """
    return save(InferenceSession(model, without_cache(sess_options)), Path(path), shapes, fallback)


def save(session: InferenceSession, path: Path, shapes: Iterable[Mapping[str, Iterable[int]]], fallback: bool,
         **notes: object) -> dict:
    """`compile` of an ordinary session; notes: what else the header shall hold."""
    body, inputs = _Body(), [*map(_port, session.inputs.values())]
    outputs = [_port(session.outputs[name]) for name in session.output_names]
    plans = [_describe(session, session.runner.plan(feeds), feeds, body) for feeds in _feeds(session.inputs, shapes)]
    header = {"format": FORMAT, "machine": machine(session.isa), "precision": getattr(session.options, "precision", "highest"),
              "inputs": inputs, "outputs": outputs,
              "folds": session.report.fold.to_dict(), "plans": plans,
              "model": body.add(_serialised(session)) if fallback else None, "arrays": body.places, **notes}
    written = _write(path, header, body.arrays)
    return {"plans": len(plans), "steps": sum(len(plan["steps"]) for plan in plans), "weight_bytes": session.report.weight_bytes,
            "bytes": written}


class _Body:
    """The arrays of a file, each once; places: [first byte, bytes] of each, from the start of the body."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.places: list[list[int]] = []
        self._known: dict[int, int] = {}
        self._end = 0

    def add(self, array: np.ndarray) -> int:
        """The array's number."""
        if id(array) not in self._known:
            self._known[id(array)] = len(self.arrays)
            self.arrays.append(array)
            self.places.append([self._end, array.nbytes])
            self._end += -(-array.nbytes // LINE) * LINE
        return self._known[id(array)]


def _feeds(inputs: Mapping[str, Port], shapes: Iterable[Mapping[str, Iterable[int]]]) -> list[dict[str, np.ndarray]]:
    out = []
    for given in list(shapes) or [{}]:
        feeds = {}
        for name, port in inputs.items():
            array = port.stand_in()
            if name in given and port.dtype is not None:
                array = port.checked(np.broadcast_to(np.zeros((), port.dtype), tuple(given[name])))
            if array is None:
                raise InvalidInputError(f"input {name!r} leaves its shape open: say for which shapes to compile")
            feeds[name] = array
        if unknown := set(given) - set(inputs):
            raise InvalidInputError(f"no input named {sorted(unknown)[0]!r}; the model has {', '.join(inputs)}")
        out.append(feeds)
    return out


def _describe(session: InferenceSession, plan: Plan, feeds: Mapping[str, np.ndarray], body: _Body) -> dict:
    for step in plan.steps:
        if isinstance(step, HostStep):
            reason = "its bodies are planned in the run" if isinstance(step, ControlStep) else step.reason
            raise UnsupportedError(f"node {step.node!r} ({step.op_type}) cannot be compiled, it runs in Python: {reason}")
    if plan.rest or plan.objects or plan.counts:
        raise UnsupportedError("the model cannot be compiled: " + (
            f"its shapes depend on the contents of {plan.cut_values[0]!r}" if plan.cut_values else
            "some of its values are no arrays or have shapes that depend on data"))

    def argument(t: Tensor | None) -> list[int] | None:
        if t is None:
            return None
        if t.buffer.kind == "const":
            return [-1 - body.add(t.buffer.array), t.offset]
        return [t.buffer.region, t.buffer.offset + t.offset]

    return {
        "feeds": {name: list(array.shape) for name, array in feeds.items()}, "arena": plan.arena_bytes, "inputs": plan.inputs,
        "outputs": [[name, list(shape), dtype.name] for name, (shape, dtype) in plan.outputs.items()],
        "constants": [[name, list(array.shape), array.dtype.name, body.add(np.ascontiguousarray(array))]
                      for name, array in plan.constants.items()],
        "steps": [[step.op.name, base64.b64encode(step.params).decode(), [argument(t) for t in step.args], step.node, step.flops,
                   step.section, step.track] for step in plan.steps]}


def _port(port: Port) -> dict:
    if not port.is_array or port.dtype is None or port.dtype.kind not in "fiub":
        raise UnsupportedError(f"the model cannot be compiled: {port.name!r} is {port.type}, not an array of numbers")
    return {"name": port.name, "type": port.type, "dtype": port.dtype.name, "dims": None if port.dims is None else list(port.dims)}


def _serialised(session: InferenceSession) -> np.ndarray:
    import onnx_ir as ir

    try:
        return np.frombuffer(ir.to_proto(session.model).SerializeToString(), np.uint8)
    except ValueError as error:
        raise UnsupportedError(f"the folded model is too large for protobuf ({error}): compile without it") from None


def _write(path: Path, header: dict, arrays: list[np.ndarray]) -> int:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(PREAMBLE.size + len(text)) % PAGE)

    def save(made: Path) -> None:
        with made.open("wb") as file:
            file.write(PREAMBLE.pack(MAGIC, len(text), sha256(text).digest()) + text)
            for array in arrays:
                file.write(array.reshape(-1).view(np.uint8).data)
                file.write(bytes(-array.nbytes % LINE))

    write(path, save)
    return path.stat().st_size
