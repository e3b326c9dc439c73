"""Every kind of bad input to the ONNX importer gets its typed error that names it; legal models come through whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_harness import build, matmul

import infold
import infold.importers
from infold.errors import Error, InvalidModelError, MemoryLimitError, UnsupportedError
from infold.importers.onnx import load

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


# ---- what is no model ----


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "empty"),
        (b'name: "LeNet"\nlayer {\n  name: "data"\n}\n', "text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not an ONNX model"),
        (b"\0" * 100, "not an ONNX model"),
        (b"PK\x03\x04" + b"\0" * 60, "not an ONNX model|truncated"),
    ],
)
def test_files_that_are_no_models(tmp_path, content, says):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match=says) as info:
        load(path)
    assert str(path) in str(info.value)
    with pytest.raises(InvalidModelError, match=says):
        load(content)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(InvalidModelError, match=r"missing.onnx.*No such file"):
        load(tmp_path / "missing.onnx")
    with pytest.raises(InvalidModelError, match="directory"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(InvalidModelError, match="no regular file"):
        load(tmp_path / "pipe.onnx")
    with pytest.raises(InvalidModelError, match="cannot be opened"):
        load("a\0b.onnx")
    with pytest.raises(TypeError, match="not int"):
        load(3)


def test_every_truncation_is_refused():
    model = matmul(numpy_helper.from_array(WEIGHT.T.copy(), "w"))
    del model.opset_import[1]
    data = model.SerializeToString()
    for size in range(len(data)):
        with pytest.raises(InvalidModelError):
            load(data[:size])
    with pytest.raises(InvalidModelError, match="truncated"):
        load(data[: len(data) // 2])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_models_load_or_are_refused_in_words(data):
    content = bytearray((LIGHT / "light_squeezenet.onnx").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        model = load(bytes(content))
    except Error as error:
        assert str(error)
    else:
        assert isinstance(model, ir.Model)


# ---- versions ----


def test_opsets():
    for opset in range(1, onnx.defs.onnx_opset_version() + 1):
        attributes = {"consumed_inputs": [0]} if opset < 6 else {}
        model = build([helper.make_node("Relu", ["x"], ["y"], **attributes)], opset=opset)
        assert load(model).graph.opset_imports[""] == opset
    with pytest.raises(UnsupportedError, match="opset 999"):
        load(build(opset=999))
    with pytest.raises(InvalidModelError, match="at least 1"):
        load(build(opset=0))
    model = build()
    del model.opset_import[:]
    with pytest.raises(InvalidModelError, match="opset"):
        load(model)
    with pytest.raises(UnsupportedError, match="IR version 99"):
        load(build(ir_version=99))


def test_models_older_than_opsets_are_opset_1():
    model = build([helper.make_node("Relu", ["x"], ["y"])], ir_version=2)
    del model.opset_import[:]
    loaded = load(model)
    assert loaded.graph.opset_imports[""] == 1 and loaded.ir_version == 4
    onnx.checker.check_model(ir.to_proto(loaded))


def test_the_long_name_of_the_onnx_domain_is_the_short_one():
    model = build([helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")])
    model.opset_import[0].domain = "ai.onnx"
    loaded = load(model)
    assert loaded.graph.opset_imports[""] == 17 and loaded.graph.node(0).domain == ""


# ---- graphs ----


@pytest.mark.parametrize(
    "model, says",
    [
        (lambda: build([helper.make_node("Add", ["x", "nowhere"], ["y"], name="sum")]), "'sum'.*'nowhere'"),
        (lambda: build(outputs=("z",)), "'z'"),
        (
            lambda: build(
                [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"], name="twice")]
            ),
            "'twice'.*'y'",
        ),
        (lambda: build([helper.make_node("Relu", ["x"], ["x"], name="over")]), "'over'.*'x'"),
        (lambda: build(inputs=("x", "x")), "two inputs called 'x'"),
        (
            lambda: build(
                [
                    helper.make_node("Add", ["x", "b"], ["a"], name="p"),
                    helper.make_node("Relu", ["a"], ["b"]),
                    helper.make_node("Relu", ["b"], ["y"]),
                ]
            ),
            "cycle.*'p'",
        ),
        (lambda: build([helper.make_node("NoSuchOperator", ["x"], ["y"], name="odd")]), "NoSuchOperator"),
        (lambda: build([helper.make_node("Relu", ["x"], ["y"], name="act", colour=3)]), "colour.*act"),
        (lambda: build([helper.make_node("Relu", ["x", "x"], ["y"], name="act")]), "act"),
        (lambda: build([helper.make_node("Conv", ["x"], ["y"], name="conv")]), "conv"),
        (lambda: build([helper.make_node("Relu", ["x"], ["y"], name="act", domain="org.other")]), "org.other"),
    ],
)
def test_illegal_graphs(model, says):
    with pytest.raises(InvalidModelError, match=says):
        load(model())


def test_a_function_that_calls_itself():
    body = [helper.make_node("Loop_", ["a"], ["b"], domain="infold")]
    function = helper.make_function("infold", "Loop_", ["a"], ["b"], body, [helper.make_opsetid("infold", 1)])
    with pytest.raises(InvalidModelError, match="infold::Loop_ calls itself"):
        load(build([helper.make_node("Loop_", ["x"], ["y"], domain="infold")], functions=[function]))


def test_unsorted_nodes_are_sorted_also_below():
    inner = helper.make_graph(
        [helper.make_node("Relu", ["later"], ["out"]), helper.make_node("Abs", ["a"], ["later"])],
        "inner",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["a"], ["out2"])],
        "other",
        [],
        [helper.make_tensor_value_info("out2", TensorProto.FLOAT, None)],
    )
    model = build(
        [
            helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other),
            helper.make_node("Abs", ["x"], ["a"]),
        ],
        initializers=[numpy_helper.from_array(np.array(True), "c")],
    )
    before = model.SerializeToString()
    loaded = load(model)
    assert [node.op_type for node in loaded.graph] == ["Abs", "If"]
    assert [node.op_type for node in loaded.graph.node(1).attributes["then_branch"].as_graph()] == ["Abs", "Relu"]
    assert model.SerializeToString() == before
    onnx.checker.check_model(ir.to_proto(loaded))


def test_outputs_without_shape_are_accepted():
    model = build()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert load(model).graph.outputs[0].shape is None


def test_dimensions_that_other_tools_write_for_open_ones():
    model = build()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "?"
    assert [dim.value for dim in load(model).graph.inputs[0].shape] == [None, None]


def test_outputs_without_a_type_get_the_inferred_one():
    """As Polygraphy marks tensors in between as outputs; onnxruntime takes them, too."""
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Neg", ["x"], ["y"])]
    model = build(nodes)
    model.graph.output.add(name="s")
    session = infold.InferenceSession(model)
    assert [(item.name, item.type) for item in session.get_outputs()] == [("y", "tensor(float)"), ("s", "tensor(int64)")]


# ---- tensors ----


@pytest.mark.parametrize(
    "tensor, says",
    [
        (TensorProto(name="w", data_type=1, dims=[3, 2], raw_data=b"\0" * 20), "'w'.*needs 24 bytes, the model has 20"),
        (TensorProto(name="w", data_type=1, dims=[3, 2], raw_data=b"\0" * 28), "needs 24 bytes"),
        (TensorProto(name="w", data_type=1, dims=[3, 2], float_data=[1, 2]), "needs 6 values, the model has 2"),
        (
            TensorProto(name="w", data_type=1, dims=[2], int64_data=[1, 2]),
            "FLOAT keeps its data in float_data, not int64_data",
        ),
        (TensorProto(name="w", data_type=1, dims=[3, 2]), "needs 6 values, the model has 0"),
        (TensorProto(name="w", data_type=1, dims=[3, -2], raw_data=b"\0" * 24), "negative"),
        (TensorProto(name="w", data_type=1, dims=[1 << 40, 1 << 40], raw_data=b"\0" * 24), "the model has 24"),
        (TensorProto(name="w", data_type=0, dims=[3, 2], raw_data=b"\0" * 24), "no data type"),
        (TensorProto(name="w", data_type=8, dims=[1], raw_data=b"abc"), "strings"),
    ],
)
def test_tensors_that_do_not_fit_their_shape(tensor, says):
    with pytest.raises(InvalidModelError, match=says):
        load(matmul(tensor))
    with pytest.raises(InvalidModelError, match=says):
        load(
            build(
                [helper.make_node("Constant", [], ["w"], value=tensor), helper.make_node("MatMul", ["x", "w"], ["y"])]
            )
        )


def test_no_memory_for_the_graph(monkeypatch):
    """What onnx_ir wraps in an exception of its own is no fault of the model."""
    def full(proto):
        raise ir.serde.SerdeError("Error calling a function") from MemoryError()

    monkeypatch.setattr(ir, "from_proto", full)
    with pytest.raises(MemoryLimitError):
        load(build())


def test_unknown_data_type():
    with pytest.raises(UnsupportedError, match=r"'w'.*data type 77"):
        load(matmul(TensorProto(name="w", data_type=77, dims=[1], raw_data=b"\0")))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint8", "int32", "int64", "bool"])
def test_weights_come_through_exactly(dtype):
    array = np.array([[0, 1, 5], [7, 0, 1]]).astype(dtype)
    raw = numpy_helper.from_array(array, "w")
    typed = helper.make_tensor("w", raw.data_type, array.shape, array.ravel().tolist())
    for tensor in (raw, typed):
        model = load(build([helper.make_node("Identity", ["w"], ["y"])], initializers=[tensor]))
        found = model.graph.initializers["w"].const_value.numpy()
        assert found.dtype == array.dtype and found.flags.aligned and np.array_equal(found, array)


def test_strings_and_packed_integers_come_through():
    words = helper.make_tensor("w", TensorProto.STRING, [2], [b"a", "\u00e9".encode()])
    nibbles = helper.make_tensor("q", TensorProto.INT4, [3], [-8, 7, 1])
    model = load(
        build([helper.make_node("Identity", ["x"], ["y"])], initializers=[words, nibbles], opset=21, ir_version=10)
    )
    assert list(model.graph.initializers["w"].const_value.string_data()) == [b"a", "\u00e9".encode()]
    assert model.graph.initializers["q"].const_value.numpy().astype(int).tolist() == [-8, 7, 1]
    with pytest.raises(InvalidModelError, match="needs 3 values"):
        load(build(initializers=[TensorProto(name="w", data_type=TensorProto.STRING, dims=[3], string_data=[b"a"])]))


def test_sparse_initializers_become_dense():
    def sparse(index):
        return helper.make_sparse_tensor(
            helper.make_tensor("w", TensorProto.FLOAT, [2], [5, 7]),
            helper.make_tensor("i", TensorProto.INT64, [2], [1, index]),
            [3, 2],
        )

    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])])
    model.graph.sparse_initializer.append(sparse(4))
    assert load(model).graph.initializers["w"].const_value.numpy().tolist() == [[0, 5], [0, 0], [7, 0]]
    model.graph.sparse_initializer[0].CopyFrom(sparse(6))
    with pytest.raises(InvalidModelError, match="sparse tensor 'w'"):
        load(model)


# ---- legal models ----


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_light_models_come_through(path):
    proto, model = onnx.load(path), load(path)
    again = ir.to_proto(model)
    assert [node.op_type for node in again.graph.node] == [node.op_type for node in proto.graph.node]
    assert {tensor.name for tensor in again.graph.initializer} == {tensor.name for tensor in proto.graph.initializer}
    onnx.checker.check_model(again)
    assert load(model) is model


def test_dispatch_by_suffix(tmp_path):
    assert isinstance(infold.importers.load(LIGHT / "light_squeezenet.onnx"), ir.Model)
    for suffix in (".t7", ".caffemodel", ".pt2"):  # each format's own importer answers
        with pytest.raises(Error, match=r"net\."):
            infold.importers.load(tmp_path / f"net{suffix}")
    with pytest.raises(UnsupportedError, match="pickle"):
        infold.importers.load(tmp_path / "net.pt")


CONSTANTS = """<ir_version: 8, opset_import: ["": 17]>
g (float[2] x) => (float[2] y, float[2] kept, string[1] text) {
    a = Constant <value_floats = [1.5, -2.0]> ()  b = Constant <value = float[2] {3, 4}> ()  s = Constant <value_float = 0.5> ()
    shape = Constant <value_ints = [2]> ()  axis = Constant <value_int = 0> ()
    kept = Constant <value_floats = [7.0, 8.0]> ()  text = Constant <value = string[1] {"abc"}> ()
    c = Add (x, a)  d = Mul (c, b)  e = Mul (d, s)  f = Reshape (e, shape)  i = Gather (shape, axis)  j = Cast <to = 1> (i)
    y = Add (f, j)
}"""


def test_a_lean_model_has_initializers_instead_of_constants(tmp_path):
    onnx.save(onnx.parser.parse_model(CONSTANTS), tmp_path / "m.onnx")
    whole, lean = load(tmp_path / "m.onnx"), load(tmp_path / "m.onnx", lean=True)
    assert [n.op_type for n in whole.graph].count("Constant") == 7
    assert {n.outputs[0].name for n in lean.graph if n.op_type == "Constant"} == {"kept", "text"}
    found = {name: value.const_value.numpy() for name, value in lean.graph.initializers.items()}
    assert {name: (array.dtype.name, array.tolist()) for name, array in found.items()} == {
        "a": ("float32", [1.5, -2.0]), "b": ("float32", [3.0, 4.0]), "s": ("float32", 0.5), "shape": ("int64", [2]),
        "axis": ("int64", 0)}
    onnx.checker.check_model(ir.to_proto(lean))


BIASES = """<ir_version: 8, opset_import: ["": 18]>
g (float[1,2,3] x, float[4] given, double[2] z) => (float[1,4,3] y, double[4] out, float[4] wide)
<float[4,2,1] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[4] given = {0, 0, 0, 0},
 float half = {0.5}, float large = {1e30}, float[2] two = {1, 2}, int64[1] rest = {-1}> {
    four = Constant <value_ints = [4]> ()
    like = CastLike (half, x)  size = Shape (given)  shape = Shape <end = 1> (w)  bias = Expand (like, four)
    conv = Conv <kernel_shape = [1]> (x, w, bias)  sum = Add (given, bias)  axes = Constant <value_ints = [0, 2]> ()
    column = Unsqueeze (sum, axes)  y = Add (conv, column)
    precise = CastLike (large, z)  wide_bias = Expand (precise, shape)  vector = Shape (two)  out = Identity (wide_bias)
    ones = Expand (half, vector)  sizes = Concat <axis = 0> (vector, rest)  folded = Reshape (w, sizes)
    turned = Transpose (folded)  product = MatMul (turned, ones)  wide = Add (product, given)
}"""


def test_a_lean_model_has_biases_of_zeros_instead_of_their_arithmetic(tmp_path):
    onnx.save(onnx.parser.parse_model(BIASES), tmp_path / "m.onnx")
    whole, lean = load(tmp_path / "m.onnx"), load(tmp_path / "m.onnx", lean=True)
    assert [n.op_type for n in lean.graph] == ["Shape", "Conv", "Add", "Unsqueeze", "Add", "Identity", "MatMul", "Add"]
    found = {name: value.const_value.numpy() for name, value in lean.graph.initializers.items()}
    assert {"bias", "axes", "wide_bias", "turned"} < found.keys()
    assert not {"four", "like", "vector", "precise", "folded"} & found.keys()
    assert found["wide_bias"].dtype == np.float64 and found["turned"].tolist() == [[1, 5], [2, 6], [3, 7], [4, 8]]
    x = {"x": np.ones((1, 2, 3), np.float32), "given": np.arange(4, dtype=np.float32), "z": np.ones(2)}
    for one, other in zip(*(onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, x) for model in (whole, lean))):
        np.testing.assert_array_equal(one, other)
        assert one.any()
    onnx.checker.check_model(ir.to_proto(lean), full_check=True)


def test_what_a_file_says_of_its_weights_twice_counts_once(tmp_path):
    model = onnx.parser.parse_model(CONSTANTS)
    for name, shape in (("c", [2]), ("w", [9])):
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "w"))
    onnx.save(model, tmp_path / "m.onnx")
    lean = load(tmp_path / "m.onnx", lean=True)
    assert lean.graph.initializers["w"].shape == [3]
    assert next(node.outputs[0].shape for node in lean.graph if node.op_type == "Add") == [2]


@pytest.mark.parametrize(("was", "becomes", "message"), [
    ("opset_import: [\"\": 17]", "opset_import: [\"\": 11]", "value_floats"),
    ("<value_int = 0>", "<value_floats = 3>", "value_floats"),
    ("axis = Constant", "a = Constant", "already exists"),
])
def test_illegal_constants_stay_illegal(tmp_path, was, becomes, message):
    assert was in CONSTANTS
    onnx.save(onnx.parser.parse_model(CONSTANTS.replace(was, becomes)), tmp_path / "m.onnx")
    with pytest.raises(InvalidModelError, match=message):
        load(tmp_path / "m.onnx", lean=True)
