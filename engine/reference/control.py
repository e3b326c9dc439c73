"""If, Loop and Scan on onnx.reference's bodies, and Optional, whose value onnx.reference wraps in a list (everywhere else it is the
value itself, or None)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.reference.op_run import OpRun

from infold import control


class Optional(OpRun):
    """The value itself, or None for an empty optional."""

    def _run(self, x=None, type=None):
        return (x,)


class _Control(OpRun):
    def need_context(self) -> bool:
        return True

    def called(self, body, run, context, **options) -> control.Body:
        """A body as `control` takes it."""

        def empty(index: int) -> np.ndarray:
            tensor = body.output_types[index].tensor_type
            dims = (dim.dim_value for dim in tensor.shape.dim)
            return np.empty((0, *dims), onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type or 1))

        def one(values: list) -> list:
            return run(context | dict(zip(body.input_names, values)), **options)

        return control.Body(control.one_by_one(one, isinstance(self, Loop)), len(body.output_names), empty)


class If(_Control):
    """The outputs of one of two subgraphs; they may be empty optionals."""

    def _run(self, condition, context=None, then_branch=None, else_branch=None, attributes=None, bindings=None):
        branch = self._run_then_branch if condition.item() else self._run_else_branch
        return tuple(branch(context, attributes=attributes, bindings=bindings))


class Loop(_Control):
    def _run(self, max_trips, condition, *state, context=None, body=None, attributes=None, bindings=None):
        called = self.called(body, self._run_body, context, attributes=attributes, bindings=bindings)
        return control.loop(called, max_trips, condition, state)


class Scan(_Control):
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
        called = self.called(self.body, self._run_body, context, attributes=attributes, bindings=bindings)
        if self.run_params["opsets"][""] < 9:
            return control.scan_batched(called, args, self.num_scan_inputs, directions)
        return control.scan(
            called, args, self.num_scan_inputs, scan_input_axes, scan_input_directions, scan_output_axes, scan_output_directions
        )
