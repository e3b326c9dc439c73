"""The graph before and after: what became of every node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import onnx_ir as ir

from ..passes.context import node_name
from .fold import FoldReport

REACH = 4  # how many nodes behind a layer are looked at for what it took in


@dataclass(frozen=True)
class Box:
    """A node: its operator, the shape of its first output as text, and whose values it reads (weights left out)."""

    name: str
    op_type: str
    shape: str
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A node and what stands in its place. Either side may be None.

    fate: of a BatchNorm the verdict ("folded", "fused", "kept"); of others "same", "changed" (another operator), "gone"
        (merged into a neighbour or computed beforehand) or "new".
    into, why: of a BatchNorm, where it went and how, or what was in the way.
    """

    before: Box | None
    after: Box | None
    fate: str
    into: str | None = None
    why: str | None = None

    @property
    def name(self) -> str:
        return (self.before or self.after).name


@dataclass(frozen=True)
class GraphReport:
    """The nodes in the order of the graph. nodes_before, nodes_after: of the main graphs, without Constant nodes."""

    nodes_before: int
    nodes_after: int
    rows: list[Row]

    def to_dict(self) -> dict:
        return asdict(self)


def compare(before: ir.Model, after: ir.Model, folds: FoldReport, stories: Mapping[str, str]) -> GraphReport:
    """Put a graph beside the one made of it; passes keep the names of values, which tell what stands for what.

    Args:
        folds, stories: the verdict on each BatchNormalization, and the story from `infold.report.explain`.
    """
    old, new = (_boxes(model) for model in (before, after))
    items = {item.name: item for item in folds.items}
    places = {node: place for place, (node, _) in enumerate(old)}
    by_node = {node.name: place for node, place in places.items() if node.name}
    by_value = {value.name: place for node, place in places.items() for value in node.outputs}
    beside: dict[int, Box] = {}
    behind: dict[int, list[Box]] = {}
    last = -1
    for node, box in new:
        place = by_node.get(node.name)
        if place is None or place in beside:
            place = next((by_value[value.name] for value in node.outputs if value.name in by_value), None)
            place = None if place is None else _same_operator(old[place][0], node, places)
        if place is None or place in beside:
            behind.setdefault(last, []).append(box)
        else:
            beside[place], last = box, place
    rows = [Row(None, box, "new") for box in behind.get(-1, ())]
    for place, (_, box) in enumerate(old):
        other, item = beside.get(place), items.get(box.name)
        if item is not None:
            rows.append(Row(box, other, item.verdict, item.into, stories.get(item.name) or item.reason))
        else:
            fate = "gone" if other is None else "same" if other.op_type == box.op_type else "changed"
            rows.append(Row(box, other, fate))
        rows += [Row(None, extra, "new") for extra in behind.get(place, ())]
    return GraphReport(len(old), len(new), rows)


def _same_operator(old: ir.Node, new: ir.Node, places: Mapping[ir.Node, int]) -> int:
    """The place of the node that `new` was made of: a layer that took in what follows it gives the last one's values now."""
    node = old
    for _ in range(REACH):
        if node.op_type == new.op_type:
            return places[node]
        before = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if before not in places:
            break
        node = before
    return places[old]


def _boxes(model: ir.Model) -> list[tuple[ir.Node, Box]]:
    return [(node, _box(node)) for node in model.graph if node.op_type != "Constant"]


def _box(node: ir.Node) -> Box:
    sources = [value.producer() or value for value in node.inputs if value is not None and not _constant(value)]
    reads = (node_name(source) if isinstance(source, ir.Node) else source.name for source in sources)
    shape = node.outputs[0].shape if node.outputs else None
    text = "" if shape is None else "×".join(str(dim if isinstance(dim, int) else dim.value or "?") for dim in shape)
    kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return Box(node_name(node), kind, text, tuple(dict.fromkeys(name for name in reads if name)))


def _constant(value: ir.Value) -> bool:
    producer = value.producer()
    return value.const_value is not None or value.is_initializer() or (producer is not None and producer.op_type == "Constant")
