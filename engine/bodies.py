"""Loop and Scan whose bodies are planned like models of their own, and run natively."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx_ir as ir

from . import control
from .errors import Error, InvalidModelError, MemoryLimitError, ShapeError
from .ops.base import attr
from .plan.graph import captured, opsets
from .plan.options import PlanOptions
from .plan.plan import Plan
from .plan.turns import Turns

if TYPE_CHECKING:
    from .runtime import Runner

ROOM = 1 << 20  # bytes of what iterations give that are asked for at a time


@dataclass(eq=False)
class _Graph:
    """A body as the planner reads a graph. initializers: its own, and the constants outside that it reads."""

    nodes: list[ir.Node]
    initializers: dict[str, ir.Value]

    def __iter__(self) -> Iterator[ir.Node]:
        return iter(self.nodes)


class _Model(NamedTuple):
    """A body as the planner reads a model."""

    graph: _Graph
    opset_imports: dict[str, int]
    functions: Mapping
    ir_version: int


class ControlRunner:
    """One Loop or Scan.

    Attributes:
        inputs: value names, "" where optional ones are absent.
        captured: the values outside, other than constants, that the bodies read; `run` needs them in `scope`.
    """

    def __init__(self, node: ir.Node, model: ir.Model, options: PlanOptions, *, runner: type[Runner]) -> None:
        self.node, self._opsets = node, opsets(model, node)
        self.name = f"node {node.name!r} ({node.op_type})"
        self.inputs = tuple("" if value is None else value.name for value in node.inputs)
        outside = {name: model.graph.initializers[name] for name in captured(node) if name in model.graph.initializers}
        constants = {name: value for name, value in outside.items() if not value.is_graph_input()}
        self.captured = tuple(sorted(captured(node) - set(constants)))
        self._most = self._left = options.max_memory
        body = node.attributes.get("body")
        if body is None or body.type != ir.AttributeType.GRAPH:
            raise InvalidModelError(f"{self.name}: no graph 'body'")
        self._graph, nodes, constants = body.value, [], {**constants, **body.value.initializers}
        for each in self._graph:
            if each.op_type == "Constant" and not each.domain and "value" in each.attributes:  # weights, as scripts export them
                name = each.outputs[0].name
                constants[name] = ir.Value(name=name, const_value=each.attributes["value"].value)
            else:
                nodes.append(each)
        whole = _Model(_Graph(nodes, constants), self._opsets, model.functions, model.ir_version)
        self._runner = runner(whole, [value.name for value in self._graph.outputs], options._replace(release=False))

    def reserve(self, used: int) -> None:
        """Leave `used` bytes of the memory that the session may use to what surrounds the body."""
        if self._most is not None:
            self._left = min(self._left, max(self._most - used, 0))
            self._runner.options = self._runner.options._replace(max_memory=self._left)

    @property
    def plans(self) -> list[Plan]:
        return self._runner.plans

    @property
    def weight_bytes(self) -> int:
        return self._runner.weight_bytes

    def run(self, inputs: Sequence[object], scope: Mapping[str, object], threads: int, seconds: dict | None) -> tuple:
        """One value for each output.

        Raises:
            ShapeError: the inputs do not fit the bodies.
        """
        node, body = self.node, self._body(scope, threads, seconds)
        try:
            if node.op_type == "Loop":
                max_trips, condition, *state = [*inputs, None, None][:max(len(inputs), 2)]
                return control.loop(body, max_trips, condition, state)
            count = attr(node, "num_scan_inputs")
            if self._opsets.get("", 1) < 9:
                return control.scan_batched(body, inputs, count, attr(node, "directions"))
            return control.scan(body, inputs, count, *(attr(node, f"scan_{which}") for which in (
                "input_axes", "input_directions", "output_axes", "output_directions")))
        except Error:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ShapeError(f"{self.name} fails on inputs {[np.shape(value) for value in inputs]}: {error}") from error

    def _body(self, scope: Mapping[str, object], threads: int, seconds: dict | None) -> control.Body:
        """The body as `control` takes it."""
        graph, kept, is_loop = self._graph, 0, self.node.op_type == "Loop"
        names, results = [value.name for value in graph.inputs], [value.name for value in graph.outputs]

        def run(columns: Sequence[np.ndarray], state: Sequence[object]) -> tuple[int, list]:
            nonlocal kept
            if len(columns) + len(state) != len(names):
                raise ShapeError(f"{self.name}: its body takes {len(names)} inputs, {len(columns) + len(state)} are given")
            first = len(columns) if is_loop else 0
            states = names[first:first + len(state)]
            moving = dict(zip(names[:first] or names[len(state):], columns))
            feeds = {**scope, **dict(zip(states, state)), **{name: np.asarray(column[0]) for name, column in moving.items()}}
            turns = Turns(moving, dict(zip(states, results)), results[len(state):], results[0] if is_loop else None,
                          ROOM if self._left is None else min(ROOM, (self._left - kept) // 2))
            found = self._runner.run(feeds, threads, seconds, turns=turns)
            values = [found[name] for name in results]
            if not turns.done:
                values = [*values[:len(state)], *(np.asarray(value)[None] for value in values[len(state):])]
            if self._left is not None:
                kept += sum(2 * value.nbytes for value in values[len(state):])
                if kept > self._left:
                    raise MemoryLimitError(f"{self.name}: what its iterations give needs more than the {self._left} bytes that are"
                                           f" left; max_memory is {self._most}")
            return max(turns.done, 1), values

        def empty(index: int) -> np.ndarray:
            value = graph.outputs[index]
            dims = () if value.shape is None else (d if isinstance(d, int) else 0 for d in value.shape)
            return np.empty((0, *dims), np.float32 if value.dtype is None else value.dtype.numpy())

        return control.Body(run, len(graph.outputs), empty)
