"""onnxruntime's inner package, from which programs take its errors."""

from . import onnxruntime_pybind11_state  # noqa: F401
