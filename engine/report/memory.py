"""What lies where in the arena, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..plan.plan import Plan
from ..plan.tensor import Buffer


@dataclass(frozen=True)
class Block:
    """A value's memory: `bytes` at `offset`, from step `first` to step `last`; `node` made it."""

    node: str
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryReport:
    """Memory over the steps of a run. live: bytes in use at each step; nodes: whose step it is; unshared: bytes of all blocks
    if none could take another's place. The arena of a run in several plans is the largest of theirs."""

    arena_bytes: int
    weight_bytes: int
    unshared_bytes: int
    nodes: list[str]
    live: list[int]
    blocks: list[Block]

    @property
    def peak(self) -> int:
        """The step at which most is in use."""
        return max(range(len(self.live)), key=self.live.__getitem__, default=0)

    def to_dict(self) -> dict:
        return {**asdict(self), "peak_step": self.peak}


def memory(plans: Sequence[Plan], weight_bytes: int) -> MemoryReport:
    """What the plans of one run do with their arenas, one plan behind the other."""
    blocks, nodes = [], []
    for plan in plans:
        start = len(nodes)
        nodes += [step.node for step in plan.steps]
        buffers: dict[Buffer, None] = {}
        for step in plan.steps:
            buffers |= {t.buffer: None for t in step.tensors() if t.buffer.kind == "arena" and t.buffer.nbytes}
        blocks += [Block(nodes[start + b.first], b.offset, b.nbytes, start + b.first, start + b.last) for b in buffers]
    live = [0] * len(nodes)
    for block in blocks:
        for step in range(block.first, block.last + 1):
            live[step] += block.bytes
    arena = max((plan.arena_bytes for plan in plans), default=0)
    return MemoryReport(arena, weight_bytes, sum(block.bytes for block in blocks), nodes, live, blocks)
