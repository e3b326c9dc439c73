"""Makes passes_harness importable, and property tests independent of how busy the machine is."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("passes", deadline=None)
settings.load_profile("passes")
