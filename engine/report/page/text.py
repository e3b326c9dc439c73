"""Numbers as people read them."""

from __future__ import annotations

import math


def size(count: float) -> str:
    """Bytes in binary units: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"


def milliseconds(value: float) -> str:
    """Three significant digits at least, microseconds at most: 12.3, 0.012."""
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 10 else f"{value:.3f}"


def error(value: float | None) -> str:
    """A relative error: 1.2e-07; none: nothing."""
    return "" if value is None else f"{value:.1e}"


def power(value: float) -> str:
    """A power of ten: 0.1, 1, 1000, 10⁻⁷."""
    exponent = round(math.log10(value))
    if -2 <= exponent <= 4:
        return f"{value:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
