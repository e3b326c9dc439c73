"""What a session asks of its plans."""
from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..reread import Reread


_NOTHING: Mapping[str, str] = MappingProxyType({})


class PlanOptions(NamedTuple):
    """isa: whose kernels; precision: "highest", "high" or "medium" (see SessionOptions); threads: of a run; max_memory: bytes or
    None; algorithms: node name (or "*": every node) -> algorithm (see plan/choice.py); tuned: by node name, and only among what
    the planner offers; None: as `infold tune` has found for this graph and these shapes; release: there will be no plan for other
    shapes, so a weight that is packed need not be kept as it was; reread: where weights can be read again."""

    isa: str
    precision: str = "highest"
    threads: int = 1
    native_only: bool = False
    max_memory: int | None = None
    algorithms: Mapping[str, str] = _NOTHING
    tuned: Mapping[str, str] | None = _NOTHING
    release: bool = False
    reread: Reread | None = None
