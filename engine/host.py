"""The machine under the session: instruction set to use, and how many CPUs this process may use."""
from __future__ import annotations

import math
import os
from pathlib import Path

from . import _native
from .errors import UnsupportedError


def isa() -> str:
    """The instruction set whose kernels run: the best of this CPU, or what the environment variable INFOLD_ISA names (for tests
    also an emulated one).

    Raises:
        UnsupportedError: INFOLD_ISA names one that does not exist or that this CPU cannot run.
    """
    usable = _native.isa_names()
    wanted = os.environ.get("INFOLD_ISA", "")
    if not wanted:
        return usable[0]
    if wanted not in [*usable, *_native.isa_names(emulated=True)]:
        raise UnsupportedError(f"INFOLD_ISA={wanted}: this CPU can run {', '.join(usable)}")
    return wanted


def cpus() -> int:
    """CPUs available to this process: its affinity mask, cut by the cgroup's quota (v2 `cpu.max`, v1 `cpu.cfs_quota_us`)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def _quota() -> float | None:
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        period = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text())
        return limit / period if limit > 0 and period > 0 else None
    except (OSError, ValueError):
        return None
