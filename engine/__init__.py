"""infold: import a trained CNN, fold its BatchNorms away, run the rest on the CPU, prove the result.

    sess = infold.InferenceSession("model.onnx")
    outs = sess.run(None, {"x": x})
"""
from __future__ import annotations

import os
from importlib import import_module

if __name__ != "infold":
    raise ImportError(f"this package is imported as `infold`, not as {__name__!r}")



def _import_native() -> None:
    """Load the native module with a short spin for OpenMP's waiting threads.

    libgomp lets them spin for milliseconds by default. On a machine that others use too, they burn the very CPU that the last
    working thread waits for: measured with two threads on two busy cores, detection took five times as long. 10,000 rounds (some
    100 microseconds) still bridge the gap to the next step. The variable is read once, when the library is loaded; who has
    set a policy keeps it.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        import_module("._native", __name__)
        return
    os.environ["GOMP_SPINCOUNT"] = "10000"
    try:
        import_module("._native", __name__)
    finally:
        del os.environ["GOMP_SPINCOUNT"]


_import_native()

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

__version__ = "0.1.0"

_LAZY = {  # name -> module (its own: the module itself); `import infold` itself stays light
    "backend": "backend", "InferenceSession": "api", "SessionOptions": "api", "NodeArg": "api", "load": "importers", "fold": "passes",
    "verify": "report.verify", "doctor": "report.doctor", "recalibrate": "report.recalibrate",
}

__all__ = ["Error", "ExternalDataError", "InvalidInputError", "InvalidModelError", "MemoryLimitError", "MissingDependencyError",
           "NativeError", "ShapeError", "UnsupportedError", *_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'infold' has no attribute {name!r}")
    import_module(".light", __name__)
    module = import_module(f".{_LAZY[name]}", __name__)
    return module if _LAZY[name] == name else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
