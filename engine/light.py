"""onnx and onnx_ir without what no model here needs: SymPy, for arithmetic on symbolic dimensions (0.3 s and 33 MB), protobuf's
text formats (a tenth of what is left), OpenSSL's hashes (3 MB), and what writes onnx's own protobuf definitions.

While onnx_ir is first imported placeholders stand for them; whoever does use a symbolic expression or a text format later gets the
true module.
"""
from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

_LATER = ("sympy", "google.protobuf.text_format", "google.protobuf.json_format", "hashlib", "argparse")


class _Placeholder(ModuleType):
    """Names found while it is in `sys.modules` are functions that call the module's; afterwards they are the module's own."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is not self:
            return getattr(import_module(self.__name__), name)
        return lambda *args, **options: getattr(import_module(self.__name__), name)(*args, **options)


def _import() -> None:
    if "onnx_ir" in sys.modules:
        return
    placeholders = {name: _Placeholder(name) for name in _LATER if name not in sys.modules}
    for name, placeholder in placeholders.items():
        package, _, leaf = name.rpartition(".")
        if package:
            setattr(import_module(package), leaf, placeholder)
        sys.modules[name] = placeholder
    try:
        import_module("onnx_ir.passes.common")
    except (ImportError, TypeError, AttributeError):  # a version that needs more of them: its import starts anew
        for name in [name for name in sys.modules if name.partition(".")[0] == "onnx_ir"]:
            del sys.modules[name]
    finally:
        for name in placeholders:
            del sys.modules[name]


_import()
