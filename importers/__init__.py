"""Importers: every format ends as a legal `onnx_ir.Model`."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import onnx
import onnx_ir as ir

if __name__ != "infold.importers":
    raise ImportError(f"this package is imported as `infold.importers`, not as {__name__!r}")

_MODULES = {".prototxt": "caffe", ".caffemodel": "caffe", ".t7": "torch7", ".pt2": "pytorch", ".pt": "pytorch", ".pth": "pytorch"}


def load(
    source: str | os.PathLike | bytes | onnx.ModelProto | ir.Model | object,
    *,
    folder: str | os.PathLike | None = None,
    lean: bool = False,
    **options: object,
) -> ir.Model:
    """Load a model: a path's suffix names its format, a torch.nn.Module speaks for itself, everything else is ONNX.

    Args:
        source: a path; bytes, ModelProto or onnx_ir.Model (ONNX); torch.nn.Module or torch.export.ExportedProgram.
        folder, lean: of ONNX alone, see `infold.importers.onnx.load`.
        options: those of the format's importer: `infold.importers.caffe.load`, `infold.importers.torch7.load` (shape),
            `infold.importers.pytorch.load` (example_inputs, dynamic_batch). Errors are theirs as well.
    Raises:
        TypeError: an option that the format's importer does not have.
    """
    name = format_of(source)
    if folder is not None:
        options["folder"] = folder
    if lean and name == "onnx":
        options["lean"] = True
    return import_module(f"infold.importers.{name}").load(source, **options)


def format_of(source: object) -> str:
    """The importer that reads `source`: "onnx", "caffe", "torch7" or "pytorch"."""
    if isinstance(source, (str, os.PathLike)):
        return _MODULES.get(os.path.splitext(os.fspath(source))[1].lower(), "onnx")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, (torch.nn.Module, torch.export.ExportedProgram)):
        return "pytorch"
    return "onnx"
