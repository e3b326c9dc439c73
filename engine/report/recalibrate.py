"""Running statistics estimated anew from data, one BatchNormalization after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import asdict, dataclass, field

import numpy as np
import onnx_ir as ir

from ..errors import InvalidInputError, UnsupportedError
from ..importers import load
from ..passes import simplified, training
from ..passes.context import GraphContext
from ..plan.graph import captured
from .inputs import required_inputs
from .moments import Moments
from .patient import Norm, Patient

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class RecalibrationItem:
    """One BatchNormalization.

    name: its node.
    values: how many values per channel its statistics come from; 0 if they were left as they are.
    mean_shift: the largest change of a mean, in standard deviations of the old statistics.
    variance_ratio: the median over the channels of new variance / old variance.
    reason: why it was left as it is.
    """

    name: str
    values: int = 0
    mean_shift: float | None = None
    variance_ratio: float | None = None
    reason: str | None = None


@dataclass
class RecalibrationReport:
    """What became of every BatchNormalization, in graph order; `samples`: the length of the data."""

    items: list[RecalibrationItem] = field(default_factory=list)
    samples: int = 0

    @property
    def recalibrated(self) -> int:
        return sum(item.reason is None for item in self.items)

    def to_dict(self) -> dict:
        """The JSON form: `batchnorms`, `recalibrated`, `samples`, `items`."""
        return {"batchnorms": len(self.items), "recalibrated": self.recalibrated, **asdict(self)}


def recalibrate(
    model: object,
    batches: Iterable[Mapping[str, np.ndarray] | np.ndarray],
    *,
    threads: int = 0,
    unbiased: bool = True,
    progress: Callable[[int, int | None], None] | None = None,
) -> tuple[ir.Model, RecalibrationReport]:
    """Re-estimate the running mean and variance of every BatchNormalization from data.

    Each gets the exact mean and variance, pooled over all batches, of its input in a network whose earlier
    BatchNormalizations already have their new statistics; how the data is cut into batches does not matter. Those in
    training mode are put into inference mode.

    Args:
        model: anything `infold.load` takes; not modified.
        batches: inputs by name, or the array of the only input; read once. All activations that cross the layer at
            work are in memory at a time, for all batches.
        threads: 0: all CPUs of the process.
        unbiased: divide by n - 1, as frameworks store the running variance, not by n.
        progress: called with (pieces of work done, pieces in all or None while unknown).

    Returns:
        The model with its constants folded, its weights as they were, and new statistics; and what has changed.

    Raises:
        InvalidInputError: no data, data that does not fit the model, one value per channel, or values not finite.
        UnsupportedError: the model has no BatchNormalization with constant statistics.
    """
    context = simplified(training.resolve(load(model), "running"))
    patient = Patient.of(context)
    reasons = {norm.node: _reason_to_keep(norm, context) for norm in patient.norms}
    targets = [norm for norm in patient.norms if reasons[norm.node] is None]
    if not targets:
        why = next(iter(reasons.values()), "it has no BatchNormalization; perhaps they are folded already")
        raise UnsupportedError(f"the model has no BatchNormalization whose statistics could be estimated: {why}")
    walk = _Walk(context, [norm.node for norm in targets], threads)
    source: Iterable[Values] = _feeds(context.model, batches)
    total = len(batches) * len(targets) if isinstance(batches, Sized) else None
    items, samples, done = {}, 0, 0
    for stage, norm in enumerate(targets):
        moments, kept = None, []
        for values in walk.advance(stage, source):
            x = values[norm.source.name]
            moments = moments or Moments(x.shape[1])
            moments.update(x)
            kept.append(values)
            samples += len(x) if stage == 0 else 0
            done += 1
            if progress is not None:
                progress(done, total)
        if moments is None:
            raise InvalidInputError("recalibration needs data: there is no batch")
        total, source = len(kept) * len(targets), _drain(kept)
        items[norm.node] = _replace(context, norm, moments, unbiased)
    report = [items.get(norm.node) or RecalibrationItem(norm.name, reason=reasons[norm.node]) for norm in patient.norms]
    return context.model, RecalibrationReport(report, samples)


class _Walk:
    """A graph run piece by piece: from one BatchNormalization to the next, values that are read later carried along."""

    def __init__(self, context: GraphContext, stops: list[ir.Node], threads: int) -> None:
        self._context, self._threads = context, threads
        self._nodes = _ancestors(context.graph, stops)
        self._cuts = [0, *(self._nodes.index(stop) for stop in stops)]

    def advance(self, stage: int, source: Iterable[Values]) -> Iterator[Values]:
        """Values of every batch before stop `stage`, from those before the stop before (at first the inputs)."""
        import infold

        piece, rest = self._nodes[self._cuts[stage] : self._cuts[stage + 1]], self._nodes[self._cuts[stage + 1] :]
        wanted = set().union(*(_reads(node) for node in rest))
        made = [value.name for node in piece for value in node.outputs if value.name in wanted]
        session = read = None
        for values in source:
            if made and session is None:
                read = [name for name in values if any(name in _reads(node) for node in piece)]
                options = infold.SessionOptions(intra_op_num_threads=self._threads)
                session = infold.InferenceSession(self._extract(values, read, made), options)
            results = session.run(made, {name: values[name] for name in read}) if made else []
            yield {name: array for name, array in values.items() if name in wanted} | dict(zip(made, results))

    def _extract(self, values: Values, inputs: list[str], outputs: list[str]) -> ir.Model:
        graph = ir.convenience.extract(self._context.graph, inputs, outputs)
        for value in (value for value in graph.inputs if value.type is None):
            value.type = ir.TensorType(ir.DataType.from_numpy(values[value.name].dtype))
        model = self._context.model
        functions = [function.clone() for function in model.functions.values()]
        return ir.Model(graph, ir_version=model.ir_version, functions=functions)


def _ancestors(graph: ir.Graph, ends: list[ir.Node]) -> list[ir.Node]:
    """The nodes that the given ones depend on, and these, in the graph's order."""
    needed, wanted = [], set()
    for node in reversed(list(graph)):
        if node in ends or wanted.intersection(value.name for value in node.outputs):
            needed.append(node)
            wanted |= _reads(node)
    return needed[::-1]


def _reads(node: ir.Node) -> set[str]:
    return {value.name for value in node.inputs if value is not None} | captured(node)


def _reason_to_keep(norm: Norm, context: GraphContext) -> str | None:
    if norm.node.graph is not context.graph:
        return "it is in a subgraph, which may not run for all data"
    if norm.source.is_initializer():
        return "it normalises a weight, not data"
    if not norm.spatial:
        return "it normalises every position for itself (spatial=0)"
    wrong = norm.not_constant()
    return next((f"its {what} {wrong[what]}" for what in ("mean", "variance") if what in wrong), None)


def _feeds(model: ir.Model, batches: Iterable[Mapping[str, np.ndarray] | np.ndarray]) -> Iterator[Values]:
    names = [value.name for value in required_inputs(model)]
    for batch in batches:
        if not isinstance(batch, Mapping):
            if len(names) != 1:
                raise InvalidInputError(f"the model has the inputs {', '.join(names)}: give a batch as arrays by name")
            batch = {names[0]: batch}
        if missing := [name for name in names if name not in batch]:
            raise InvalidInputError(f"the input {missing[0]!r} is missing; the model needs {', '.join(names)}")
        yield {name: np.asarray(array) for name, array in batch.items()}


def _drain(values: list[Values]) -> Iterator[Values]:
    """The batches in order, each let go of once the next is asked for."""
    values.reverse()
    while values:
        yield values.pop()


def _replace(context: GraphContext, norm: Norm, moments: Moments, unbiased: bool) -> RecalibrationItem:
    if moments.count < 2:
        raise InvalidInputError(f"BatchNormalization {norm.name!r} gets one value per channel: too little data for a variance")
    mean, variance = moments.mean, moments.variance(unbiased)
    for index, (what, new) in enumerate((("mean", mean), ("variance", variance)), 3):
        dtype = context.array(norm.node.inputs[index]).dtype
        with np.errstate(over="ignore"):
            stored = new.astype(dtype)
        if not np.isfinite(stored).all():
            raise InvalidInputError(f"BatchNormalization {norm.name!r}: with this data the {what} of its input is not finite")
        context.set_constant(norm.node, index, stored, f"{norm.name}.{what}")
    with np.errstate(all="ignore"):
        shift = np.abs(mean - norm.mean) / np.sqrt(norm.variance + norm.epsilon)
        ratio = float(np.median(variance / norm.variance))
    return RecalibrationItem(norm.name, moments.count, float(np.max(shift)), ratio)
