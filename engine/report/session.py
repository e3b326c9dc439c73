"""What a session can tell of itself: folded BatchNorms, fallbacks, memory, and the time of each step."""
from __future__ import annotations

from dataclasses import asdict, dataclass

from .. import _native
from ..plan.plan import FallbackStep, HostStep
from ..plan.program import Step
from .fold import FoldReport


@dataclass(frozen=True)
class Fallback:
    """A node that runs in the reference evaluator, and why it has no native kernel."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class SessionReport:
    fold: FoldReport
    fallbacks: list[Fallback]
    isa: str
    threads: int
    weight_bytes: int
    arena_bytes: int
    plans: int

    def to_dict(self) -> dict:
        return {**asdict(self), "fold": self.fold.to_dict()}


@dataclass(frozen=True)
class StepRecord:
    """One step of a profile. `ms`: median milliseconds; `gflops`: billion multiply-adds times two per second, 0 if not counted;
    `side_by_side`: whether other threads run steps of their own meanwhile."""

    name: str
    op: str
    kernel: str
    ms: float
    gflops: float
    native: bool
    side_by_side: bool = False

    @staticmethod
    def of(step: Step | HostStep, seconds: float) -> StepRecord:
        if isinstance(step, HostStep):
            native = not isinstance(step, FallbackStep)
            return StepRecord(step.node, step.op_type, "control" if native else "onnx.reference", 1e3 * seconds, 0.0, native)
        rate = step.flops / seconds * 1e-9 if seconds > 0 else 0.0
        return StepRecord(step.node, step.op.name, kernel_name(step), 1e3 * seconds, rate, True, step.section > 0)

    def to_dict(self) -> dict:
        return asdict(self)


def kernel_name(step: Step) -> str:
    """The operation, with the function it applies where it is a map, and its tile where it has one."""
    if step.op.name == "winograd":
        side = int.from_bytes(step.params[:8], "little")
        return f"winograd.{side}x{side}"
    names = {"unary": _native.ACTS, "binary": _native.BINARIES}.get(step.op.name)
    if names is None:
        return step.op.name
    number = int.from_bytes(step.params[8 * 24:8 * 25], "little")
    return f"{step.op.name}.{next(n for n, i in names.items() if i == number).lower()}"
