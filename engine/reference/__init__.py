"""Reference computation on NumPy arrays: any node (the session's fallback), whole models in float64 (the yardstick)."""

from __future__ import annotations

from infold.reference.evaluator import NodeRunner, inline
from infold.reference.float64 import Float64Model, run_float64

__all__ = ["Float64Model", "NodeRunner", "inline", "run_float64"]
