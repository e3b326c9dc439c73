"""The light models of the onnx package with weights that carry information: float64 is the judge, onnxruntime the measure."""
from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from light import LIGHT, with_random_weights
from session_harness import session

from infold import _native, host
from infold.importers import load
from infold.reference import run_float64

NAMES = sorted(path.stem.removeprefix("light_") for path in LIGHT.glob("*.onnx"))
SMALL = ["shufflenet", "squeezenet"]  # run on every instruction set, and with a batch of four
onnxruntime.set_default_logger_severity(4)


@cache
def network(name: str, batch: int = 1, logits: bool = False) -> ir.Model:
    """logits: what a last Softmax reads is the last output."""
    proto = with_random_weights(LIGHT / f"light_{name}.onnx")
    if batch != 1:
        _set_batch(proto, batch)
    if logits and proto.graph.node[-1].op_type == "Softmax":
        proto.graph.output.append(onnx.helper.make_tensor_value_info(proto.graph.node[-1].input[0], onnx.TensorProto.FLOAT, None))
    return load(proto)


def _set_batch(proto: onnx.ModelProto, batch: int) -> None:
    weights = {tensor.name for tensor in proto.graph.initializer}
    for value in (*proto.graph.input, *proto.graph.output):
        if value.name not in weights:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    targets = {node.input[1] for node in proto.graph.node if node.op_type == "Reshape"}
    for tensor in proto.graph.initializer:
        if tensor.name in targets:
            target = onnx.numpy_helper.to_array(tensor).copy()
            target[0] = batch if target[0] == 1 else target[0]
            tensor.CopyFrom(onnx.numpy_helper.from_array(target, tensor.name))
    del proto.graph.value_info[:]


def image(model: ir.Model) -> dict[str, np.ndarray]:
    (value,) = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    return {value.name: np.random.default_rng(1).standard_normal(tuple(value.shape)).astype(np.float32)}


def error(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    top = np.abs(expected).max()
    assert np.ptp(expected) > 1e-3 * top, "a constant reference proves nothing"
    return np.abs(found - expected).max() / top


def onnxruntime_outputs(model: ir.Model, feeds) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options).run(None, feeds)


@pytest.mark.parametrize("name, batch", [*((n, 1) for n in NAMES), *((n, 4) for n in SMALL)])
def test_as_accurate_as_onnxruntime(name: str, batch: int):
    if name not in SMALL and host.isa() != _native.isa_names()[0]:
        pytest.skip("the small ones cover the same operators")
    model = network(name, batch, logits=True)
    feeds = image(model)
    expected, peer = list(run_float64(model, feeds).values()), onnxruntime_outputs(model, feeds)
    subject = session(model)
    found = subject.run(None, feeds)
    # Probabilities that two classes share err by one number, as small or large as chance has it. Of logits there are a
    # thousand, and Softmax passes on at most half of their largest error.
    assert error(found[-1], expected[-1]) <= max(2 * error(peer[-1], expected[-1]), 1e-6)
    if len(found) == 2:
        assert np.abs(found[0] - expected[0]).max() <= np.abs(found[1] - expected[1]).max() / 2 + 1e-6
    for one, two in zip(found, session(model, threads=2).run(None, feeds), strict=True):
        np.testing.assert_array_equal(two, one)
    assert {fallback.op_type for fallback in subject.report.fallbacks} <= {"LRN"}


@pytest.mark.parametrize("isa", [None, *_native.isa_names(emulated=True)])
@pytest.mark.parametrize("precision, tolerance", [("highest", 2e-6), ("high", 3e-4), ("medium", 3e-2)])
def test_precision_levels(precision: str, tolerance: float, isa: str | None, monkeypatch):
    """The error of a whole network at each level, also with the kernels of a CPU that this one may not be."""
    if isa is not None:
        monkeypatch.setenv("INFOLD_ISA", isa)
    model = network("squeezenet")
    feeds = image(model)
    (expected,) = run_float64(model, feeds).values()
    (found,) = session(model, precision=precision).run(None, feeds)
    assert error(found, expected) <= tolerance and found.argmax() == expected.argmax()


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_values_inside(name: str):
    """What the plan computes on the way, by name; activations that ran inside a convolution are there as well."""
    model = network(name)
    feeds = image(model)
    subject = session(model)
    names = [v.name for node in subject.model.graph for v in node.outputs][3::11]
    found, expected = subject.run_intermediates(feeds, names), run_float64(subject.model, feeds, names)
    assert list(found) == names and len(names) >= 5
    for value in names:
        assert error(found[value], expected[value]) <= 3e-6


def test_arena_is_smaller_than_the_values_it_holds():
    """Lifetimes are what the arena is planned from: a fraction of all intermediates together."""
    model = network("squeezenet")
    subject = session(model)
    feeds = image(model)
    everything = run_float64(model, feeds, [v.name for node in model.graph for v in node.outputs])
    assert subject.report.arena_bytes < sum(a.size * 4 for a in everything.values()) / 4
