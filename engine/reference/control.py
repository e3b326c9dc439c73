"""If, Loop and Scan as specified, and Optional. onnx.reference concatenates scan outputs where it must stack them, takes an
absent loop condition for false, knows neither scan axes nor directions nor the batched Scan of opset 8, and wraps the value of
an Optional (which everywhere else is the value itself, or None) in a list."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.reference.op_run import OpRun


class Optional(OpRun):
    """The value itself, or None for an empty optional."""

    def _run(self, x=None, type=None):
        return (x,)


class If(OpRun):
    """The outputs of one of two subgraphs; they may be empty optionals."""

    def need_context(self) -> bool:
        return True

    def _run(self, condition, context=None, then_branch=None, else_branch=None, attributes=None, bindings=None):
        branch = self._run_then_branch if condition.item() else self._run_else_branch
        return tuple(branch(context, attributes=attributes, bindings=bindings))


class Loop(OpRun):
    """for iteration in range(max_trips) while condition: state = body(iteration, condition, state)."""

    def need_context(self) -> bool:
        return True

    def _run(self, max_trips, condition, *state, context=None, body=None, attributes=None, bindings=None):
        collected: list[list] = [[] for _ in body.output_names[1 + len(state) :]]
        iteration, state, going = 0, list(state), condition is None or bool(condition)
        while going and (max_trips is None or iteration < int(max_trips)):
            feeds = dict(zip(body.input_names, [np.array(iteration, np.int64), np.array(going), *state]))
            going, *results = self._run_body(context | feeds, attributes=attributes, bindings=bindings)
            going, state = bool(going), results[: len(state)]
            for values, value in zip(collected, results[len(state) :]):
                values.append(value)
            iteration += 1
        return (*state, *(_stack(values, kind) for values, kind in zip(collected, body.output_types[1 + len(state) :])))


class Scan(OpRun):
    """state, outputs[i] = body(state, inputs[i]) along an axis of each scan input, forwards or backwards."""

    def need_context(self) -> bool:
        return True

    def _run(
        self,
        *args,
        context=None,
        body=None,
        num_scan_inputs=None,
        scan_input_axes=None,
        scan_input_directions=None,
        scan_output_axes=None,
        scan_output_directions=None,
        directions=None,
        attributes=None,
        bindings=None,
    ):
        def step(feeds: dict) -> list:
            return self._run_body(context | feeds, attributes=attributes, bindings=bindings)

        if self.run_params["opsets"][""] >= 9:
            return self._scan(
                step, args, scan_input_axes, scan_input_directions, scan_output_axes, scan_output_directions
            )
        lengths, *args = args  # opset 8: everything has a batch dimension, each sample its own length
        samples = []
        for sample, columns in enumerate(zip(*args)):
            length = columns[-1].shape[0] if lengths is None else int(lengths[sample])
            columns = [*columns[:-num_scan_inputs], *(column[:length] for column in columns[-num_scan_inputs:])]
            samples.append(self._scan(step, columns, None, directions, None, None))
        return tuple(_pad_and_stack(values) for values in zip(*samples))

    def _scan(self, run, args, axes, directions, out_axes, out_directions) -> tuple:
        body, count = self.body, self.num_scan_inputs
        state, inputs = list(args[:-count]), args[-count:]
        inputs = [
            np.flip(np.moveaxis(x, _at(axes, i), 0), 0) if _at(directions, i) else np.moveaxis(x, _at(axes, i), 0)
            for i, x in enumerate(inputs)
        ]
        collected: list[list] = [[] for _ in body.output_names[len(state) :]]
        for step in range(inputs[0].shape[0]):
            results = run(dict(zip(body.input_names, [*state, *(x[step] for x in inputs)])))
            state = results[: len(state)]
            for values, value in zip(collected, results[len(state) :]):
                values.append(value)
        outputs = []
        for i, (values, kind) in enumerate(zip(collected, body.output_types[len(state) :])):
            stacked = _stack(values[::-1] if _at(out_directions, i) else values, kind)
            outputs.append(np.moveaxis(stacked, 0, _at(out_axes, i)))
        return (*state, *outputs)


def _at(values, index: int) -> int:
    """Return an entry of an optional list attribute, 0 by default."""
    return values[index] if values else 0


def _stack(values: list, kind: onnx.TypeProto) -> np.ndarray:
    """Stack the iterations' values along a new first axis; without iterations, the declared type with length 0."""
    if values:
        return np.stack(values)
    tensor = kind.tensor_type
    return np.empty(
        (0, *(dim.dim_value for dim in tensor.shape.dim)), onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type or 1)
    )


def _pad_and_stack(values: tuple[np.ndarray, ...]) -> np.ndarray:
    longest = max(value.shape[:1] for value in values)
    return np.stack(
        [
            np.pad(
                value, [(0, n - m) for n, m in zip(longest, value.shape[:1])] + [(0, 0)] * (value.ndim - len(longest))
            )
            for value in values
        ]
    )
