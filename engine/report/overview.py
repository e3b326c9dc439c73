"""All that the reports know of one model, gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from .bench import BenchReport, bench
from .doctor import DoctorReport, doctor
from .explain import explanations
from .fold import FoldReport
from .graph import GraphReport, compare
from .inputs import random_inputs, usual_shapes
from .layers import Layer, layers
from .machine import facts
from .memory import MemoryReport, memory
from .session import Fallback
from .verify import VerifyReport, verify

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Overview:
    """One model: its graph, BatchNorms, time, memory, peers, accuracy and ailments. `stories`: see `explanations`."""

    model: str
    machine: dict
    graph: GraphReport
    fold: FoldReport
    stories: dict[str, str]
    layers: list[Layer]
    fallbacks: list[Fallback]
    memory: MemoryReport
    bench: BenchReport
    accuracy: VerifyReport
    doctor: DoctorReport

    def to_dict(self) -> dict:
        """Plain values: all that the page shows."""
        fold = self.fold.to_dict()
        for item in fold["items"]:
            item["explanation"] = self.stories[item["name"]]
        return {
            "model": self.model,
            "machine": self.machine,
            "graph": self.graph.to_dict(),
            "fold": fold,
            "layers": [layer.to_dict() for layer in self.layers],
            "fallbacks": [asdict(fallback) for fallback in self.fallbacks],
            "memory": self.memory.to_dict(),
            "bench": self.bench.to_dict(),
            "accuracy": self.accuracy.to_dict(),
            "doctor": self.doctor.to_dict(),
        }


def overview(
    model: ir.Model,
    *,
    name: str,
    threads: int = 1,
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    engines: Sequence[str] | None = None,
    rounds: int = 10,
    seconds: float = 0.3,
    runs: int = 20,
    training_mode: str = "error",
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Overview:
    """Fold, run, time and check a model, on random inputs.

    Args:
        name: what the reports call it.
        threads: of infold and of its peers.
        batch, shapes: of the inputs, where the model leaves them open; further open dimensions are 224.
        engines, rounds, seconds: see `infold.report.bench.bench`.
        runs: of the profile.
        training_mode: see `infold.SessionOptions`.
        progress: called with what is being done, how much of it is done, and how much there is.
    Raises:
        Error: infold or the float64 run cannot load or run the model.
    """
    from ..api import InferenceSession, SessionOptions
    from ..passes import training

    progress("Examining", 0, 5)
    ailments = doctor(model)
    resolved = training.resolve(model, training_mode)
    dims = usual_shapes(resolved, batch) | dict(shapes or {})
    feeds = random_inputs(resolved, dims)
    progress("Folding", 1, 5)
    session = InferenceSession(resolved, SessionOptions(intra_op_num_threads=threads, training_mode="batch"))
    progress("Profiling", 2, 5)
    timed = layers(session, feeds, runs)
    plans = session.report
    stories = explanations(resolved, plans.fold)
    graph = compare(resolved, session.model, plans.fold, stories)
    arena = memory(session.runner.plans, plans.weight_bytes)
    progress("Verifying every layer", 3, 5)
    accuracy = verify(resolved, shapes=dims, threads=threads, layers=True, training_mode="batch")
    times = bench(resolved, name=name, threads=threads, shapes=dims, engines=engines, rounds=rounds, seconds=seconds,
                  training_mode="batch", progress=lambda done, total: progress("Timing beside its peers", done, total))
    return Overview(name, facts(), graph, plans.fold, stories, timed, plans.fallbacks, arena, times, accuracy, ailments)
