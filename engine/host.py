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


def cpus(root: Path = Path("/")) -> int:
    """CPUs available to this process: its affinity mask, cut by the quotas of its cgroup and of those around it (v2 `cpu.max`, v1
    `cpu.cfs_quota_us`). root: where proc and sys are."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *map(math.ceil, _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """In CPUs: of every cgroup that holds this process, as far as they can be seen from here."""
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines() or ["0::/", "1:cpu:/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        inside = Path("cpu" if controllers else "") / path.lstrip("/")
        for group in (inside, *inside.parents):  # a container may see its own at the top instead
            limits = [word for name in names for word in _read(root / "sys/fs/cgroup" / group / name).split()]
            if len(limits) == 2 and all(each.isdigit() and int(each) for each in limits):  # else "max", or -1
                found.append(int(limits[0]) / int(limits[1]))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
