"""PyTorch models: an nn.Module with example inputs, an ExportedProgram, or a `.pt2` file, through torch.onnx."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnx_ir as ir

from infold.errors import Error, InvalidModelError, MissingDependencyError, UnsupportedError, root_cause
from infold.importers._tensors import map_tensors
from infold.importers.onnx import load as load_onnx

if TYPE_CHECKING:
    import torch


def load(
    source: torch.nn.Module | torch.export.ExportedProgram | str | os.PathLike,
    example_inputs: object = None,
    *,
    dynamic_batch: bool = False,
) -> ir.Model:
    """Export a PyTorch model to ONNX, in evaluation mode, unoptimised: its BatchNorms stay visible to the report.

    Args:
        source: a module, which is left exactly as it was; an exported program; or the path of a `.pt2` file, which is
            examined first, so that loading it runs no code of its own.
        example_inputs: a module's positional arguments: a tensor or NumPy array, or a sequence of these.
        dynamic_batch: leave the first dimension of all inputs open (modules only; an exported program has dynamic
            dimensions of its own).
    Returns:
        A legal model with weights of its own.
    Raises:
        MissingDependencyError: torch or onnxscript is not installed.
        UnsupportedError: torch cannot export the model; a program in training mode; a pickle (`.pt`, `.pth`), or a
            `.pt2` that could run code.
        InvalidModelError: the file cannot be read.
    """
    if isinstance(source, (str, os.PathLike)) and os.path.splitext(os.fspath(source))[1].lower() in (".pt", ".pth"):
        raise UnsupportedError(
            f"{os.fspath(source)}: a .pt or .pth file is a pickle, and loading a pickle can run any code; infold loads "
            "none. Load it in the PyTorch code it belongs to, with model.load_state_dict(torch.load(path, "
            "weights_only=True)), then either infold.load(model, example_inputs=x), or "
            "torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2')"
        )
    torch = _torch()
    if isinstance(source, (str, os.PathLike, torch.export.ExportedProgram)):
        if dynamic_batch or example_inputs is not None:
            what = "an exported program" if isinstance(source, torch.export.ExportedProgram) else "a .pt2 file"
            raise TypeError(f"{what} has its inputs and dynamic dimensions: example_inputs and dynamic_batch are for modules")
        program = source if isinstance(source, torch.export.ExportedProgram) else _read(os.fspath(source))
        return _finish(_export(_evaluated(program), None, None))
    if example_inputs is None:
        raise TypeError(
            f"to export {type(source).__name__}, give example_inputs: a tensor, or a sequence of tensors, as its forward takes"
        )
    arguments = _arguments(torch, example_inputs)
    shapes = None
    if dynamic_batch:
        # torch.export takes a dimension of 1 for a constant.
        arguments = tuple(torch.cat([x, x]) if x.ndim and x.shape[0] == 1 else x for x in arguments)
        batch = torch.export.Dim("batch")
        shapes = tuple({0: batch} if x.ndim else None for x in arguments)
    if source.training or any(module.training for module in source.modules()):
        warnings.warn(
            f"{type(source).__name__} is in training mode; it is exported as in evaluation mode (BatchNorms with their "
            "running statistics, no dropout) and left as it was",
            stacklevel=2,
        )
    with _evaluation(source):
        return _finish(_export(source, arguments, shapes))


def _torch():
    try:
        import onnxscript  # noqa: F401  torch.onnx needs it
        import torch
    except ImportError as error:
        raise MissingDependencyError(f"PyTorch models need the package {error.name}: pip install 'infold[torch]'") from error
    return torch


def _arguments(torch, example_inputs: object) -> tuple[torch.Tensor, ...]:
    import numpy as np

    values = [example_inputs] if isinstance(example_inputs, (torch.Tensor, np.ndarray)) else example_inputs
    if not isinstance(values, Sequence) or not all(isinstance(value, (torch.Tensor, np.ndarray)) for value in values):
        raise TypeError("example_inputs must be a tensor or array, or a sequence of these")
    return tuple(torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in values)


@contextmanager
def _evaluation(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, flag by flag: eval() may be overridden and do more, and train() cannot restore mixed flags."""
    flags = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in flags:
            part.training = False
        yield
    finally:
        for part, training in flags:
            part.training = training


def _evaluated(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Refuse a program in training mode: torch.onnx would keep its dropout and silently change its BatchNorms."""
    for node in program.graph.nodes:
        for position, argument in enumerate(getattr(getattr(node.target, "_schema", None), "arguments", ())):
            value = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            if argument.name in ("train", "training") and value is True:
                raise UnsupportedError(
                    f"node {node.name!r} ({node.target}): the program was exported in training mode; "
                    "call eval() on the module before torch.export.export"
                )
    return program


def _export(model: torch.nn.Module | torch.export.ExportedProgram, arguments: tuple | None, shapes: tuple | None) -> ir.Model:
    import torch

    name = type(model).__name__
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # optimize=False: torch's optimiser folds some BatchNorms by itself, in float32 and without a word.
            program = torch.onnx.export(model, arguments or (), dynamo=True, optimize=False, verbose=False, dynamic_shapes=shapes)
    except Exception as error:  # torch raises errors of many kinds here, of the model's own code as well
        cause = root_cause(error)
        raise UnsupportedError(
            f"torch.onnx cannot export the {name}: {type(cause).__name__}: {str(cause).strip()[:500]}"
        ) from error
    return program.model


def _finish(model: ir.Model) -> ir.Model:
    """Give the model weights of its own, without torch's notes on where in the source each node came from."""
    map_tensors(model, lambda tensor: ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name))
    for graph in [*model.graphs(), *model.functions.values()]:
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
    return load_onnx(model)


def _read(path: str) -> torch.export.ExportedProgram:
    import io

    import torch

    from infold.importers import _pt2

    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InvalidModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        _pt2.check(data)
    except Error as error:
        raise type(error)(f"{path}: {error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(data))
    except Exception as error:  # of many kinds, for archives that are well formed and make no sense
        raise InvalidModelError(
            f"{path}: torch.export cannot load it: {type(error).__name__}: {str(error).strip()[:300]}"
        ) from error
    program._guards_code = []  # checks of the inputs as Python source, which torch would compile and run
    return program
