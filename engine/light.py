"""onnx_ir without SymPy, which it imports for arithmetic on symbolic dimensions: 0.3 s and 33 MB that no model here needs.

While onnx_ir is first imported a placeholder stands for SymPy; whoever does use a symbolic expression later gets the true one.
"""
from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType


class _Placeholder(ModuleType):
    """Names found while it is in `sys.modules` are functions that call SymPy's; afterwards they are SymPy's own."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get("sympy") is not self:
            return getattr(import_module("sympy"), name)
        return lambda *args, **options: getattr(import_module("sympy"), name)(*args, **options)


def _import() -> None:
    if "sympy" in sys.modules or "onnx_ir" in sys.modules:
        return
    sys.modules["sympy"] = _Placeholder("sympy")
    try:
        import_module("onnx_ir")
    except (ImportError, TypeError, AttributeError):  # a version that needs more of it: its import starts anew, with SymPy
        for name in [name for name in sys.modules if name.partition(".")[0] == "onnx_ir"]:
            del sys.modules[name]
    finally:
        del sys.modules["sympy"]


_import()
