"""Is infold's result right? Measured against a float64 run of the original model, beside onnxruntime's error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import onnx_ir as ir

from infold.passes import training
from infold.reference import Float64Model
from infold.report.deviation import deviation, differences, trivial
from infold.report.divergence import NO_YARDSTICK, Inside, LayerReport, allowed, first_divergent, right_pattern
from infold.report.inputs import random_inputs, required_inputs, usual_shapes
from infold.report.peer import Peer, PeerError
from infold.report.plain import plain


@dataclass(frozen=True)
class OutputReport:
    """One output. Errors are max|y - r| / max|r| against the float64 run r; None where there is nothing to compare.

    max_abs, max_rel: infold against onnxruntime; relative only for elements of at least 1e-3 of the largest.
    trivial: the reference is constant, so that agreement proves little; the values inside the graph decide instead.
    note: what numbers cannot say (other NaNs, onnxruntime no yardstick).
    """

    name: str
    max_abs: float | None
    max_rel: float | None
    error: float
    onnxruntime_error: float | None
    ok: bool
    trivial: bool = False
    note: str | None = None


@dataclass
class VerifyReport:
    """The verdict. `onnxruntime`: its version, or why it was not used. `layers`: None unless asked for."""

    ok: bool
    outputs: list[OutputReport]
    onnxruntime: str
    first_divergent: str | None = None
    layers: list[LayerReport] | None = None

    def to_dict(self) -> dict:
        """Plain values for JSON; an infinite error becomes None."""
        return plain(asdict(self))

    def summary(self) -> str:
        """The verdict in lines of plain text, with whose error is larger."""
        lines = []
        for output in self.outputs:
            line = f"{'ok  ' if output.ok else 'FAIL'} {output.name}: error {output.error:.1e} against float64"
            if output.onnxruntime_error is not None:
                line += f", onnxruntime's {output.onnxruntime_error:.1e} ({_larger(output)})"
            if output.max_abs is not None:
                line += f"; the two differ by at most {output.max_abs:.1e}"
            notes = ["the reference is constant, which proves little: the values inside the graph decided"] * output.trivial + [
                output.note
            ] * bool(output.note)
            lines += [line, *(f"     {note}" for note in notes)]
        if all(output.onnxruntime_error is None for output in self.outputs):
            lines.append(f"onnxruntime: {self.onnxruntime}; compared with float64 only")
        if self.first_divergent is not None:
            lines.append(f"the first node that diverges is {self.first_divergent!r}")
        return "\n".join([*lines, "ok" if self.ok else "not ok"])


def verify(
    model: object,
    inputs: Mapping[str, np.ndarray] | None = None,
    *,
    seed: int = 0,
    batch: int | None = None,
    size: int = 224,
    shapes: Mapping[str, Sequence[int]] | None = None,
    threads: int | None = None,
    layers: bool = False,
    training_mode: str = "error",
) -> VerifyReport:
    """Run a model in infold, in onnxruntime and in float64, and compare.

    Args:
        model: anything `infold.load` takes.
        inputs: arrays by name; missing ones are random (see `infold.report.inputs.random_inputs`).
        seed: of the random inputs.
        batch: their first dimension where the model leaves it open (default 1).
        size: their height, width and further dimensions where the model leaves them open.
        shapes: their shapes by name, before `batch` and `size`.
        threads: of infold and of onnxruntime; default: infold's and onnxruntime's own choice.
        layers: compare every value inside the graph, not the outputs alone.
        training_mode: see `infold.SessionOptions`; with "running" all three run the model so changed.
    Returns:
        `ok` if, for each output, NaNs and infinities are where they should be and the error is at most twice
        onnxruntime's or 1e-6; and, where an output's reference is constant, no value inside the graph clearly departs.
        If not ok, `first_divergent` names the first node, in topological order, that departs.
    Raises:
        Error: the model cannot be loaded, or infold or the float64 run cannot run it.
    """
    import infold

    loaded = training.resolve(infold.load(model), training_mode)
    feeds = _feeds(loaded, inputs or {}, seed, batch, size, shapes or {})
    names = [value.name for value in loaded.graph.outputs]
    options = infold.SessionOptions(intra_op_num_threads=threads or 0, training_mode="batch")  # resolved above
    session = infold.InferenceSession(loaded, options)
    found = dict(zip(names, session.run(names, feeds)))
    oracle = Float64Model(loaded)
    exact, theirs = oracle.run(feeds, names), {}
    try:
        peer = Peer(loaded, threads or 0)
        status, theirs = peer.version, peer.run(feeds, names)
    except PeerError as error:
        peer, status = None, str(error)
    outputs = [_compare(name, found[name], exact[name], theirs.get(name)) for name in names]
    ok, unsure = all(output.ok for output in outputs), any(output.trivial for output in outputs)
    if not layers and ok and not unsure:
        return VerifyReport(ok, outputs, status)
    inside = Inside(loaded, feeds, session, oracle, peer)
    compared = inside.compare() if layers else inside.search()
    if unsure:
        ok = ok and not any(layer.clearly_diverges for layer in compared)
    report = VerifyReport(ok, outputs, status, layers=compared if layers else None)
    if not ok:
        wrong = first_divergent(compared)  # none: folding took away what is inside
        report.first_divergent = wrong.node if wrong else _producer(loaded, next(o.name for o in outputs if not o.ok))
    return report


def _compare(name: str, y: object, r: object, o: object) -> OutputReport:
    error, peer_error, notes = deviation(y, r), None, []
    if o is not None:
        peer_error = deviation(o, r)
        if peer_error > NO_YARDSTICK:
            notes.append(f"onnxruntime is {peer_error:.1e} away from float64, too far to be a yardstick: one of them is wrong")
    if math.isinf(error):
        notes.append("shape, type or text differs from the float64 run's")
    pattern = right_pattern(y, r, o)
    if not pattern:
        notes.append("NaNs or infinities are not where they should be")
    ok = pattern and error <= allowed(peer_error)
    return OutputReport(name, *differences(y, o), error, peer_error, ok, trivial(r), "; ".join(notes) or None)


def _producer(model: ir.Model, name: str) -> str:
    """Name the node that computes a graph output."""
    node = next(value for value in model.graph.outputs if value.name == name).producer()
    return name if node is None else node.name or name


def _feeds(
    model: ir.Model, given: Mapping[str, np.ndarray], seed: int, batch: int | None, size: int, shapes: Mapping[str, Sequence[int]]
) -> dict[str, np.ndarray]:
    """Complete the given inputs by random ones."""
    missing = [value for value in required_inputs(model) if value.name not in given]
    if not missing:
        return dict(given)
    if batch is None:
        batch = next((len(array) for array in given.values() if np.ndim(array)), None)
    chosen = usual_shapes(model, batch, size) | dict(shapes)
    chosen |= {value.name: np.shape(given[value.name]) for value in required_inputs(model) if value.name in given}
    return random_inputs(model, chosen, seed=seed) | dict(given)


def _larger(output: OutputReport) -> str:
    if output.error == output.onnxruntime_error:
        return "equal"
    return "infold's is larger" if output.error > output.onnxruntime_error else "onnxruntime's is larger"
