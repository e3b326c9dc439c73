"""What this machine is, as far as it matters for speed."""

from __future__ import annotations

import os
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


def cpu_count() -> int:
    """The CPUs this process may use: its affinity, further limited by its cgroup's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return count if quota is None else max(1, min(count, int(quota + 0.5)))


def caches() -> dict[str, int]:
    """Bytes of the data caches that the kernels block for, by level: L1, L2, L3."""
    from infold import _native

    return {f"L{level}": _native.cache_bytes(level) for level in (1, 2, 3)}


def isas() -> list[str]:
    """The instruction sets whose kernels this CPU can run, best first."""
    from infold import _native

    return _native.isa_names()


def chosen_isa() -> str:
    """The instruction set of new sessions: the best one, or what INFOLD_ISA says."""
    return os.environ.get("INFOLD_ISA") or isas()[0]


def _cgroup_quota() -> float | None:
    """CPUs' worth of time the control group (version 2) allows, None where it sets no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)
