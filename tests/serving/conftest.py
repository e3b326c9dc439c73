"""kserve asks for older libraries than the other tests have: these have an environment of their own, which `make serving` makes."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

if find_spec("kserve") is None:
    collect_ignore_glob = ["*.py"]
