"""What this machine is, as far as it matters for speed."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def caches() -> dict[str, int]:
    """Bytes of the data caches that the kernels block for, by level: L1, L2, L3."""
    from infold import _native

    return {f"L{level}": _native.cache_bytes(level) for level in (1, 2, 3)}
