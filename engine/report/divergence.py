"""Where a wrong result begins: values inside the graph, infold's against the float64 run's."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from infold.plan.graph import captured
from infold.reference import Float64Model
from infold.report.deviation import deviation, same_pattern
from infold.report.inputs import required_inputs
from infold.report.peer import Peer, PeerError

ROUNDING = 1e-6  # an error that counts as float32 rounding whatever onnxruntime's is
NO_YARDSTICK = 0.1  # beyond this onnxruntime and float64 compute different things
_AT_A_TIME = 100  # how many values are held at once


@dataclass(frozen=True)
class LayerReport:
    """One value inside the graph, named by its node; errors as for `OutputReport`."""

    node: str
    op_type: str
    output: str
    error: float
    onnxruntime_error: float | None

    @property
    def clearly_diverges(self) -> bool:
        """Is the error beyond what another order of summation can explain?"""
        return self.error > allowed(self.onnxruntime_error, 10, 10 * ROUNDING)

    @property
    def diverges(self) -> bool:
        """Is the error beyond what `verify` allows an output?"""
        return self.error > allowed(self.onnxruntime_error, 2, ROUNDING)


def allowed(peer_error: float | None, factor: float = 2, rounding: float = ROUNDING) -> float:
    """Return how large an error may be beside onnxruntime's."""
    return rounding if peer_error is None or peer_error > NO_YARDSTICK else max(factor * peer_error, rounding)


def right_pattern(y: object, r: object, o: object) -> bool:
    """Are the NaNs and infinities of y where float64's are, or at least where onnxruntime's are (None: unknown)?"""
    return same_pattern(y, r) or (o is not None and same_pattern(y, o))


class Inside:
    """The values of a graph that depend on its inputs and that infold still has after folding.

    Args:
        model: the original model.
        session: an InferenceSession of it.
        peer: onnxruntime on it, None to do without.
    """

    def __init__(self, model: ir.Model, feeds: Mapping[str, np.ndarray], session, oracle: Float64Model, peer: Peer | None):
        self._feeds, self._session, self._oracle, self._peer = feeds, session, oracle, peer
        self._parents: dict[str, set[str]] = {}
        self._nodes: dict[str, ir.Node] = {}  # in topological order
        depending = {value.name for value in required_inputs(model)}
        for node in model.graph:
            sources = {value.name for value in node.inputs if value is not None} | captured(node)
            for name in (value.name for value in node.outputs if value.name):
                self._parents[name] = sources
                if sources & depending and name in oracle.names:
                    depending.add(name)
                    self._nodes[name] = node

    def compare(self, names: Collection[str] | None = None) -> list[LayerReport]:
        """Compare values in topological order; default: all."""
        names, layers = [name for name in self._nodes if names is None or name in names], []
        for start in range(0, len(names), _AT_A_TIME):
            layers += self._compare(names[start : start + _AT_A_TIME])
        return layers

    def search(self) -> list[LayerReport]:
        """Compare no more values than it takes to find the first that diverges.

        First values at even distances; then, if one diverges, those it depends on and no good one does.
        """
        names = list(self._nodes)
        layers = self.compare({*names[:: -(-len(names) // _AT_A_TIME) or 1], *names[-1:]})
        wrong = first_divergent(layers)
        if wrong is None:
            return layers
        good = {layer.output for layer in layers if not layer.diverges}
        suspects = self._ancestors({wrong.output}) - self._ancestors(good) - {layer.output for layer in layers}
        return self._sorted([*layers, *self.compare(suspects)])

    def _compare(self, names: list[str]) -> list[LayerReport]:
        found = self._session.run_intermediates(self._feeds, names)
        exact, theirs = self._oracle.run(self._feeds, found), {}
        if self._peer is not None:
            try:
                theirs = self._peer.run(self._feeds, list(found))
            except PeerError:  # some values cannot be outputs there: errors of these are against float64 alone
                theirs = {}
        layers = []
        for name in (name for name in names if name in found):
            y, r, o, node = found[name], exact[name], theirs.get(name), self._nodes[name]
            error = deviation(y, r) if right_pattern(y, r, o) else math.inf
            peer_error = None if o is None else deviation(o, r)
            layers.append(LayerReport(node.name or name, node.op_type, name, error, peer_error))
        return layers

    def _ancestors(self, names: set[str]) -> set[str]:
        """Return the values and all they depend on."""
        seen, waiting = set(), list(names)
        while waiting:
            if (name := waiting.pop()) not in seen:
                seen.add(name)
                waiting.extend(self._parents.get(name, ()))
        return seen

    def _sorted(self, layers: list[LayerReport]) -> list[LayerReport]:
        order = {name: index for index, name in enumerate(self._nodes)}
        return sorted(layers, key=lambda layer: order[layer.output])


def first_divergent(layers: list[LayerReport]) -> LayerReport | None:
    """Return the first value that clearly diverges, else the first that diverges at all."""
    return next((layer for layer in layers if layer.clearly_diverges), None) or next(
        (layer for layer in layers if layer.diverges), None
    )
