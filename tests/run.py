"""The whole suite: what depends on the instruction set once for each one this CPU has, then everything with the best.

Each part is a process of its own with its `INFOLD_ISA`. Arguments go to pytest. Exits non-zero if any part failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infold import _native

ROOT = Path(__file__).parent.parent
PER_ISA = (
    "native",
    "ops",
    "plan",
    "runtime",
    "models",
)  # folders under tests/ whose results depend on the instruction set


def pytest(folders: list[Path], isa: str | None) -> int:
    environment = {name: value for name, value in os.environ.items() if name != "INFOLD_ISA"}
    if isa is not None:
        environment["INFOLD_ISA"] = isa
    print(f"== {isa or 'everything, ' + _native.isa_names()[0]} ==", flush=True)
    return subprocess.call(
        [sys.executable, "-m", "pytest", "-q", *sys.argv[1:], *map(str, folders)], cwd=ROOT, env=environment
    )


def main() -> int:
    folders = [ROOT / "tests" / name for name in PER_ISA if (ROOT / "tests" / name).is_dir()]
    codes = [pytest(folders, isa) for isa in reversed(_native.isa_names()[1:])]
    codes.append(pytest([ROOT / "tests"], None))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
