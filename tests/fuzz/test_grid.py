"""Every native operator × hostile numbers: each attribute, dimension and integer input in turn takes each edge value.

Attributes also get lengths, and inputs ranks and types, that do not fit; inputs and outputs go missing or appear twice.
The operators come from the registry, their legal uses from onnx's own tests, so a new operator is covered by itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from campaign import Campaign, Harness
from graphs import MEMORY, inputs_for, native, small_models
from onnx import helper, numpy_helper

import infold

EDGES = [-1, 0, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1, -(2**63)]
WITHOUT_EXAMPLE = {"Cast", "CastLike"}  # those of onnx hold no arrays


def examples() -> dict[str, list[onnx.ModelProto]]:
    """Two models of each native operator: the smallest, and that with the most attributes and inputs."""
    found: dict[str, list[onnx.ModelProto]] = {}
    wanted = native()
    for model, _ in small_models():
        if len(model.graph.node) == 1 and model.graph.node[0].op_type in wanted:
            found.setdefault(model.graph.node[0].op_type, []).append(model)
    rich = {
        name: max(models, key=lambda m: len(m.graph.node[0].attribute) + len(m.graph.node[0].input))
        for name, models in found.items()
    }
    return {name: [min(models, key=lambda m: m.ByteSize()), rich[name]] for name, models in found.items()}


def variants(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """All hostile variants of a model of one node."""

    def copy() -> tuple[onnx.ModelProto, onnx.NodeProto]:
        other = onnx.ModelProto.FromString(model.SerializeToString())
        return other, other.graph.node[0]

    node = model.graph.node[0]
    version = next(o.version for o in model.opset_import if o.domain == "")
    for name, attribute in onnx.defs.get_schema(node.op_type, version, "").attributes.items():
        given = next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)
        if attribute.type == onnx.defs.OpSchema.AttrType.INT:
            values: list = EDGES
        elif attribute.type == onnx.defs.OpSchema.AttrType.INTS:
            given = list(given or [1, 1])
            values = [[*given[:i], edge, *given[i + 1 :]] for i in range(len(given)) for edge in EDGES]
            values += [given[:-1] or [1, 1, 1], [*given, 1], [1] * 40]
        elif attribute.type == onnx.defs.OpSchema.AttrType.FLOAT:
            values = [float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 3e38]
        else:
            values = ["", "nonsense"] if attribute.type == onnx.defs.OpSchema.AttrType.STRING else []
        for value in values:
            other, changed = copy()
            for old in [a for a in changed.attribute if a.name == name]:
                changed.attribute.remove(old)
            changed.attribute.append(helper.make_attribute(name, value))
            yield other
    for at, value in enumerate(model.graph.input):
        dims = value.type.tensor_type.shape.dim
        for axis in range(len(dims)):
            for edge in EDGES:
                other, _ = copy()
                other.graph.input[at].type.tensor_type.shape.dim[axis].dim_value = edge
                yield other
        for change in (
            lambda d: d.add(dim_value=2),
            lambda d: d.pop() if len(d) else None,
            lambda d: d.extend(list(d)),
            lambda d: d.add(dim_param="n"),
        ):
            other, _ = copy()
            change(other.graph.input[at].type.tensor_type.shape.dim)
            yield other
        for kind in (onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64, onnx.TensorProto.STRING, onnx.TensorProto.COMPLEX64, 0, 99):
            other, _ = copy()
            other.graph.input[at].type.tensor_type.elem_type = kind
            yield other
    for at, tensor in enumerate(model.graph.initializer):
        array = numpy_helper.to_array(tensor)
        for index in range(min(array.size, 6)):
            for edge in EDGES:
                other, _ = copy()
                bent = array.copy()
                bent.flat[index] = edge
                other.graph.initializer[at].CopyFrom(numpy_helper.from_array(bent, tensor.name))
                yield other
        for bent in (
            array.reshape(-1)[:-1],
            np.append(array, array.reshape(-1)),
            array.reshape(1, *array.shape),
            array.astype(np.float64),
        ):
            other, _ = copy()
            other.graph.initializer[at].CopyFrom(numpy_helper.from_array(bent, tensor.name))
            yield other
    for change in (
        lambda n: n.input.pop(), lambda n: n.input.append("nobody"), lambda n: n.input.append(n.input[0]), lambda n: n.output.pop(),
        lambda n: n.output.append("more"), lambda n: n.output.append(n.output[0]), lambda n: n.input.extend(n.output[:1]),
        *(lambda n, at=at: n.input.__setitem__(at, "") for at in range(len(node.input))),
    ):  # fmt: skip
        if node.input:
            other, changed = copy()
            change(changed)
            yield other
    for version in (1, 6, 11, 13):
        other, _ = copy()
        other.opset_import[0].version = version
        yield other


class Grid(Harness):
    """Variant number i of an operator is refused, or runs."""

    def __init__(self, models: list[onnx.ModelProto]) -> None:
        self.name = models[0].graph.node[0].op_type
        self.variants = [variant for model in models for variant in variants(model)]

    def run(self, index: int, second_opinion) -> tuple[str, str]:
        self.index = index
        return super().run(index, second_opinion)

    def trial(self, rng: random.Random, second_opinion) -> tuple[str, str]:
        session = infold.InferenceSession(
            self.variants[self.index], infold.SessionOptions(1, max_memory=MEMORY, training_mode="batch")
        )
        feeds = inputs_for(session, rng)
        if feeds is None:
            return "loaded", ""
        session.run(None, feeds)
        return "ran without a second opinion", ""


@pytest.fixture(scope="module")
def models() -> dict[str, list[onnx.ModelProto]]:
    return examples()


def test_every_native_operator_has_an_example(models):
    assert set(native()) - models.keys() <= WITHOUT_EXAMPLE and not WITHOUT_EXAMPLE & models.keys()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("step", [41, pytest.param(1, marks=pytest.mark.slow)])
def test_grid(step: int, models):
    """Some variants of each operator; all of them with `-m slow`."""
    bad, tried, refused = [], 0, 0
    for number, name in enumerate(sorted(models)):
        harness = Grid(models[name])
        harness.variants = harness.variants[number % step :: step]
        campaign = Campaign(harness)
        campaign.run(0, 600, len(harness.variants))
        bad += [{**u, "model": onnx.printer.to_text(harness.variants[int(u["mutant"].split(":")[1])])} for u in campaign.unclean]
        tried += sum(campaign.counts.values())
        refused += campaign.counts["refused"]
    assert not bad, "\n".join(f"{u['outcome']}: {u['detail'][-1500:]}\n{u['model']}" for u in bad[:10])
    assert tried >= 2 * len(models) and 0 < refused < tried
