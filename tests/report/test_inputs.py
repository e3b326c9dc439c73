from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from infold.errors import InvalidInputError, UnsupportedError
from infold.report.inputs import random_inputs, required_inputs


def model(*inputs: tuple[str, int, list | None], initializers: tuple[str, ...] = ()) -> ir.Model:
    """A graph of Identity nodes, one for each input (name, element type, shape)."""
    infos = [onnx.helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    nodes = [onnx.helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    outputs = [onnx.helper.make_tensor_value_info(f"{name}_out", kind, None) for name, kind, _ in inputs]
    values = [onnx.numpy_helper.from_array(np.ones(1, np.float32), name) for name in initializers]
    return ir.serde.deserialize_model(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", infos, outputs, values)))


FLOAT, UINT8, INT64, BOOL = (getattr(onnx.TensorProto, name) for name in ("FLOAT", "UINT8", "INT64", "BOOL"))


def test_values_follow_the_type_and_the_seed() -> None:
    graph = model(("x", FLOAT, [100, 100]), ("p", UINT8, [1000]), ("i", INT64, [100]), ("b", BOOL, [100]), ("s", FLOAT, []))
    feeds = random_inputs(graph)
    assert [feeds[name].dtype for name in "xpibs"] == [np.float32, np.uint8, np.int64, np.bool_, np.float32]
    assert abs(feeds["x"].mean()) < 0.1 and 0.9 < feeds["x"].std() < 1.1 and feeds["s"].shape == ()
    assert feeds["p"].max() > 200 and set(feeds["i"]) == {0, 1} and set(feeds["b"]) == {False, True}
    again, other = random_inputs(graph), random_inputs(graph, seed=1)
    assert np.array_equal(again["x"], feeds["x"]) and not np.array_equal(other["x"], feeds["x"])


def test_an_open_batch_is_one_unless_given() -> None:
    graph = model(("x", FLOAT, ["n", 3]))
    assert random_inputs(graph)["x"].shape == (1, 3)
    assert random_inputs(graph, batch=4)["x"].shape == (4, 3)
    assert random_inputs(graph, {"x": (2, 3)}, batch=4)["x"].shape == (2, 3)


def test_inputs_with_a_default_are_not_required() -> None:
    graph = model(("x", FLOAT, [1]), ("w", FLOAT, [1]), initializers=("w",))
    assert [value.name for value in required_inputs(graph)] == ["x"] and list(random_inputs(graph)) == ["x"]


@pytest.mark.parametrize(
    ("shape", "wanted", "batch", "message"),
    [
        (["n", 3, "h"], None, None, r"'x': dimension 2 \(h\) is open.*nx3xh"),
        ([1, 3], None, 2, "'x': the model fixes the batch at 1"),
        ([1, 3], {"x": (1, 4)}, None, "declared as 1x3, not 1x4"),
        ([1, 3], {"x": (1, 3, 1)}, None, "declared as 1x3, not 1x3x1"),
        ([1, 3], {"y": (1, 3)}, None, "no input 'y'; it has 'x'"),
        (None, None, None, "'x' declares no shape"),
    ],
)
def test_what_cannot_be_made_up(shape: list | None, wanted: dict | None, batch: int | None, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        random_inputs(model(("x", FLOAT, shape)), wanted, batch)


def test_strings_cannot_be_made_up() -> None:
    with pytest.raises(UnsupportedError, match="'x'"):
        random_inputs(model(("x", onnx.TensorProto.STRING, [1])))
