"""The whole suite: what depends on the instruction set once for each one this CPU has, then everything with the best.

Each part is a pytest of its own with its `INFOLD_ISA` and a worker for each CPU. Arguments go to pytest. Exits non-zero if
any part failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infold import _native, host

ROOT = Path(__file__).parent.parent
PER_ISA = ("ops", "models", "test_runtime.py")  # where results depend on the ISA; tests/native and ops/test_precision.py try each
NONE_SELECTED = 5  # pytest's exit code, right for a part in which the given options select nothing


def pytest(paths: list[Path], isa: str) -> int:
    """Run pytest on files and folders; returns its exit code."""
    print(f"== INFOLD_ISA={isa}: {' '.join(str(path.relative_to(ROOT)) for path in paths)} ==", flush=True)
    workers = ["-n", str(host.cpus()), "--dist", "worksteal"]
    command = [sys.executable, "-m", "pytest", "-q", *workers, *sys.argv[1:], *map(str, paths)]
    return subprocess.call(command, cwd=ROOT, env={**os.environ, "INFOLD_ISA": isa})


def main() -> int:
    best, *others = _native.isa_names()
    others = [name for name in others if _native.isa_info(name)["kernels"] == name != _native.isa_info(best)["kernels"]]
    paths = [path for name in PER_ISA if (path := ROOT / "tests" / name).exists()]
    codes = [pytest(paths, isa) for isa in reversed(others)] + [pytest([ROOT / "tests"], best)]
    if sys.argv[1:]:
        codes = [code for code in codes if code != NONE_SELECTED] or [NONE_SELECTED]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
