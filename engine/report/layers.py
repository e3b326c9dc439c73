"""Where the time of a run goes, layer by layer, and how close each layer comes to its roof."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import _native
from ..passes.context import node_name
from ..plan.plan import HostStep
from ..plan.program import Step
from ..plan.tensor import Buffer, Tensor
from .roofline import bandwidth, roof
from .session import StepRecord

if TYPE_CHECKING:
    from ..api import InferenceSession

COPIED = (1 << 16) - 1  # bytes: a smaller copy would measure NumPy's call
SCRATCH = ("stage", "scratch")  # arguments of an operation that neither bring it anything nor take anything away


@dataclass(frozen=True)
class Layer:
    """All steps of one node of the prepared graph. ms: their median times added up; share: of the whole run.

    flops: multiply-adds times two, 0 where they are not counted.
    bytes: what goes in, the weights and what comes out, each once; what only the layer's own steps see is left out.
    bandwidth: bytes per second, by all threads, of a copy of about as much.
    peak: operations per second of all threads on registers alone, float32.
    """

    name: str
    op_type: str
    kernels: str
    native: bool
    ms: float
    share: float
    flops: int
    bytes: int
    bandwidth: float
    peak: float

    @property
    def gflops(self) -> float:
        return self.flops / self.ms * 1e-6 if self.ms else 0.0

    @property
    def roof_gflops(self) -> float:
        """The most that this machine could do, given the layer's operations for each byte."""
        return 1e-9 * roof(self.peak, self.flops / self.bytes, self.bandwidth) if self.bytes else 1e-9 * self.peak

    @property
    def least_ms(self) -> float:
        """The time that the operations or the bytes take at least, whichever is longer."""
        return 1e3 * max(self.flops / self.peak, self.bytes / self.bandwidth)

    @property
    def of_roof(self) -> float:
        """`least_ms` over `ms`: 1 is as fast as this machine goes. Algorithms with fewer multiplications may pass it."""
        return self.least_ms / self.ms if self.ms else 0.0

    @property
    def bound(self) -> str:
        """What limits it: "compute" or "memory"."""
        return "compute" if self.flops / self.peak > self.bytes / self.bandwidth else "memory"

    def to_dict(self) -> dict:
        return {
            "name": self.name, "op_type": self.op_type, "kernels": self.kernels, "native": self.native, "ms": self.ms,
            "share": self.share, "flops": self.flops, "bytes": self.bytes, "gflops": self.gflops,
            "bandwidth": self.bandwidth, "peak_gflops": 1e-9 * self.peak, "roof_gflops": self.roof_gflops,
            "least_ms": self.least_ms, "of_roof": self.of_roof, "bound": self.bound,
        }  # fmt: skip


def layers(session: InferenceSession, feeds: Mapping[str, np.ndarray], runs: int = 10) -> list[Layer]:
    """Profile a session, step times added up by node, in execution order."""
    times = session.step_seconds(feeds, runs)
    groups: dict[str, list] = defaultdict(list)
    users: dict[Buffer, set[str]] = defaultdict(set)
    for step in times:
        groups[step.node].append(step)
        for tensor in _tensors(step):
            users[tensor.buffer].add(step.node)
    kinds = {node_name(node): node.op_type for node in session.model.graph.all_nodes()}
    total = sum(times.values()) or 1.0
    peak = _native.peak_flops(session.isa, 0.02, False, session.threads)
    speeds: dict[int, float] = {}
    found = []
    for name, steps in groups.items():
        seen = {tensor: None for step in steps for tensor in _tensors(step)
                if tensor.buffer.kind != "arena" or len(users[tensor.buffer]) > 1}
        size = sum(tensor.dtype.itemsize * _distinct(tensor) for tensor in seen)
        octave = max(size, COPIED).bit_length()
        if octave not in speeds:
            speeds[octave] = session.threads * bandwidth(1 << octave)
        records = [StepRecord.of(step, times[step]) for step in steps]
        spent = sum(record.ms for record in records)
        found.append(Layer(
            name, kinds.get(name) or records[-1].op, ", ".join(dict.fromkeys(record.kernel for record in records)),
            all(record.native for record in records), spent, spent / 1e3 / total,
            sum(getattr(step, "flops", 0) for step in steps), size, speeds[octave], peak))
    return found


def _tensors(step: Step | HostStep) -> list[Tensor]:
    """What a step brings and takes away."""
    if isinstance(step, HostStep):
        return step.tensors()
    return [t for name, t in zip(step.op.args, step.args) if t is not None and name not in SCRATCH]


def _distinct(tensor: Tensor) -> int:
    """How many elements a view has, those that it repeats counted once."""
    return int(np.prod([n for n, stride in zip(tensor.shape, tensor.strides) if stride], dtype=np.int64))
