"""What became of every BatchNormalization of a model."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

Verdict = Literal["folded", "fused", "kept"]


@dataclass
class FoldItem:
    """One BatchNormalization: its node name, where it went (`into`: a node name), why it stayed in the graph (`reason`)."""

    name: str
    verdict: Verdict
    into: str | None = None
    reason: str | None = None


@dataclass
class FoldReport:
    """The verdict on every BatchNormalization found, in graph order.

    `remaining` counts the BatchNormalization nodes left in the resulting graph: kept ones, and fused ones, which are
    still nodes of their own in ONNX and disappear only in a session's plan.
    """

    items: list[FoldItem] = field(default_factory=list)
    remaining: int = 0

    @property
    def batchnorms(self) -> int:
        return len(self.items)

    @property
    def folded(self) -> int:
        return self._count("folded")

    @property
    def fused(self) -> int:
        return self._count("fused")

    def with_fused(self, fused: Mapping[str, str]) -> FoldReport:
        """The report after planning: kept nodes named in `fused` have become part of the kernel of the node given there."""
        return replace(self, items=[
            replace(item, verdict="fused", into=fused[item.name]) if item.verdict == "kept" and item.name in fused
            else item for item in self.items])

    def _count(self, verdict: Verdict) -> int:
        return sum(item.verdict == verdict for item in self.items)

    def to_dict(self) -> dict[str, int | Sequence[dict[str, str | None]]]:
        """The JSON form: `batchnorms`, `folded`, `fused`, `remaining`, `items`."""
        return {"batchnorms": self.batchnorms, "folded": self.folded, "fused": self.fused, "remaining": self.remaining,
                "items": [asdict(item) for item in self.items]}
