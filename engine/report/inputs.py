"""Inputs for a model that is measured or tried out rather than used: random tensors of the shapes it declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from infold.errors import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from infold.api import InferenceSession


def required_inputs(model: ir.Model) -> list[ir.Value]:
    """The graph inputs a caller must supply: those that no initializer gives a default."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def inputs_of(session: InferenceSession) -> ir.Model:
    """A model with the inputs of a session and nothing else."""
    values = [
        ir.Value(name=port.name, shape=None if port.dims is None else ir.Shape(port.dims),
                 type=ir.TensorType(ir.DataType.from_numpy(port.dtype)))
        for port in session.inputs.values()
    ]
    return ir.Model(ir.Graph(values, [], nodes=[], name="inputs"), ir_version=10)


def random_inputs(
    model: ir.Model, shapes: Mapping[str, Sequence[int]] | None = None, batch: int | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random tensors for every required input of `model`, the same for the same seed.

    Floating types are standard normal, uint8 uniform over all bytes, other integers 0 and 1, bool both values.

    Args:
        shapes: shape by input name, for inputs whose declared shape has open dimensions or none.
        batch: the first dimension of every input that `shapes` does not name; an open first dimension is 1 without it.
        seed: of the generator.
    Raises:
        InvalidInputError: `shapes` names no input, contradicts a declared shape, or an open dimension has no value.
        UnsupportedError: an input is no numeric tensor.
    """
    inputs, shapes = required_inputs(model), dict(shapes or {})
    if unknown := shapes.keys() - {value.name for value in inputs}:
        raise InvalidInputError(
            f"the model has no input {sorted(unknown)[0]!r}; it has {', '.join(repr(v.name) for v in inputs)}"
        )
    generator = np.random.default_rng(seed)
    return {value.name: _random(value, _shape(value, shapes.get(value.name), batch), generator) for value in inputs}


def _shape(value: ir.Value, wanted: Sequence[int] | None, batch: int | None) -> tuple[int, ...]:
    declared = None if value.shape is None else [dim if isinstance(dim, int) else None for dim in value.shape]
    if wanted is None:
        if declared is None:
            raise InvalidInputError(f"input {value.name!r} declares no shape: give one")
        wanted = [
            (1 if batch is None else batch) if axis == 0 and dim is None else dim for axis, dim in enumerate(declared)
        ]
        if batch is not None and wanted and wanted[0] != batch:
            raise InvalidInputError(
                f"input {value.name!r}: the model fixes the batch at {wanted[0]}, {batch} was asked"
            )
        if None in wanted:
            axis = wanted.index(None)
            raise InvalidInputError(
                f"input {value.name!r}: dimension {axis} ({value.shape[axis]}) is open: give the shape, "
                f"declared as {_spelled(value)}"
            )
    if declared is not None and (
        len(wanted) != len(declared) or any(want != dim for want, dim in zip(wanted, declared) if dim is not None)
    ):
        raise InvalidInputError(
            f"input {value.name!r} is declared as {_spelled(value)}, not {'x'.join(map(str, wanted))}"
        )
    return tuple(wanted)


def usual_shape(value: ir.Value, batch: int | None = None, size: int = 224) -> list[int]:
    """Fill the open dimensions of an image (or of what looks like one): batch, 3 channels, then `size`."""
    usual = [1 if batch is None else batch, 3 if value.shape.rank() > 2 else size]
    return [dim if isinstance(dim, int) else usual[axis] if axis < 2 else size for axis, dim in enumerate(value.shape)]


def usual_shapes(model: ir.Model, batch: int | None = None, size: int = 224) -> dict[str, list[int]]:
    """The usual shape of every required input of a known rank, by name."""
    inputs = required_inputs(model)
    return {value.name: usual_shape(value, batch, size) for value in inputs if value.shape is not None}


def _spelled(value: ir.Value) -> str:
    return "x".join(str(dim if isinstance(dim, int) else dim.value or "?") for dim in value.shape)


def _random(value: ir.Value, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    if not isinstance(value.type, ir.TensorType) or value.dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        raise UnsupportedError(f"input {value.name!r} is {value.type}: only numeric tensors can be made up")
    dtype = value.dtype.numpy()
    if dtype == np.bool_:
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return generator.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
