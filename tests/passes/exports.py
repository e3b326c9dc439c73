"""Modules as torch's two exporters write them."""

from __future__ import annotations

import importlib.util
import io
import warnings
from pathlib import Path
from types import ModuleType

import onnx
import onnx_ir as ir
import pytest

HOW = [("script", 13), ("script", 17), ("traced", 18), ("optimised", 18)]


def export(module, x, how: str, opset: int, dynamic: tuple[int, ...] = ()) -> ir.Model:
    """The module with input x [N, C, ...] and output y.

    Args:
        how: "script" for the TorchScript exporter, else the one of torch.export: "traced" as it is, or "optimised".
        dynamic: open dimensions of x.
    """
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    names = {"input_names": ["x"], "output_names": ["y"], "opset_version": opset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "script":
            file = io.BytesIO()
            torch.onnx.export(module, (x,), file, dynamo=False, **names,
                              training=torch.onnx.TrainingMode.PRESERVE,
                              dynamic_axes={"x": {axis: f"d{axis}" for axis in dynamic}})
            return ir.from_proto(onnx.load_from_string(file.getvalue()))
        shapes = ({axis: torch.export.Dim(f"d{axis}") for axis in dynamic},) if dynamic else None
        program = torch.onnx.export(module, (x,), dynamo=True, verbose=False, optimize=how == "optimised",
                                    dynamic_shapes=shapes, **names)
    return ir.from_proto(program.model_proto)


def timm_layers(name: str) -> ModuleType:
    """A module of timm.layers, also where torchvision's compiled operators do not fit torch."""
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("zoo", Path(__file__).parents[2] / "bench" / "zoo.py")
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    try:
        zoo._torchvision()
        return importlib.import_module(f"timm.layers.{name}")
    except ImportError as error:
        pytest.skip(str(error))
