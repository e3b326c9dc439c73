"""infold: import a trained CNN, fold its BatchNorms away, run the rest on the CPU, prove the result.

    sess = infold.InferenceSession("model.onnx")
    outs = sess.run(None, {"x": x})
"""
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if __name__ != "infold":
    raise ImportError(f"this package is imported as `infold`, not as {__name__!r}")

from . import _native  # noqa: F401  (loaded first: every session stands on it)
from .errors import (
    Error,
    ExternalDataError,
    InvalidInputError,
    InvalidModelError,
    MemoryLimitError,
    MissingDependencyError,
    NativeError,
    ShapeError,
    UnsupportedError,
)

if TYPE_CHECKING:  # what `__getattr__` below finds
    from . import backend
    from .api import InferenceSession, SessionOptions
    from .compiling import compile
    from .importers import load
    from .passes import fold
    from .ports import NodeArg
    from .preprocess import Preprocess
    from .report.doctor import doctor
    from .report.recalibrate import recalibrate
    from .report.tune import tune
    from .report.verify import verify

__version__ = "0.1.0"

_LAZY = {  # name -> module (its own: the module itself); `import infold` itself stays light
    "backend": "backend", "InferenceSession": "api", "SessionOptions": "api", "NodeArg": "ports", "compile": "compiling",
    "Preprocess": "preprocess",
    "load": "importers",
    "fold": "passes",
    "verify": "report.verify", "doctor": "report.doctor", "recalibrate": "report.recalibrate", "tune": "report.tune",
}

_WITHOUT_ONNX = {"api", "ports", "compiling", "preprocess"}  # they import it, by way of `light`, when they need it

__all__ = [
    "Error",
    "ExternalDataError",
    "InferenceSession",
    "InvalidInputError",
    "InvalidModelError",
    "MemoryLimitError",
    "MissingDependencyError",
    "NativeError",
    "NodeArg",
    "Preprocess",
    "SessionOptions",
    "ShapeError",
    "UnsupportedError",
    "backend",
    "compile",
    "doctor",
    "fold",
    "load",
    "recalibrate",
    "tune",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'infold' has no attribute {name!r}")
    if _LAZY[name] not in _WITHOUT_ONNX:
        import_module(".light", __name__)
    module = import_module(f".{_LAZY[name]}", __name__)
    return module if _LAZY[name] == name else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
