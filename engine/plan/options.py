"""What a session asks of its plans."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PlanOptions:
    """isa: whose kernels; precision: "highest", "high" or "medium" (see SessionOptions); threads: of a run; max_memory: bytes or
    None;
    algorithms: node name (or "*": every node) -> algorithm (see plan/choice.py); release: there will be no plan for
    other shapes, so a weight that is packed need not be kept as it was."""

    isa: str
    precision: str = "highest"
    threads: int = 1
    native_only: bool = False
    max_memory: int | None = None
    algorithms: Mapping[str, str] = field(default_factory=dict)
    release: bool = False
