"""The embedded demo: infold on a small network and on a real reading machine, everything checked against onnxruntime.

Nothing is downloaded. The network of the first half and the picture of the second lie beside this file, with the
scripts that made them; the second half's models come with the PyPI package rapidocr-onnxruntime (ocr.py says how to install it).
"""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def run(console: Console, short: bool = False) -> dict:
    """Run the demo, telling the console what happens; `short` takes fewer timings (for continuous integration).

    Returns a JSON-ready dict: `ok`, `lenet` and `ocr` (each with its own `ok`, results and milliseconds). A half whose
    packages are missing says so in one line and holds `skipped` instead of `ok`; it does not make `ok` false.
    """
    from infold.demo import lenet, ocr

    results = {"lenet": lenet.run(console, short), "ocr": ocr.run(console, short)}
    return {"ok": all(half.get("ok", True) for half in results.values()), **results}
