"""Models beyond what protobuf, a stack or a memory can hold: refused in words, and before they are read or built."""

from __future__ import annotations

import resource
from itertools import pairwise

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import infold
from infold.errors import InvalidModelError, MemoryLimitError, UnsupportedError
from infold.importers._protobuf import _delimited
from infold.importers.onnx import load

FLOATS = helper.make_tensor_value_info("x", 1, [2])
TRUTH = helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])


def peak() -> int:
    """The largest size in bytes that the process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def sparse(path, head: bytes, field: int, size: int, wrap: int | None = None):
    """A file that ends in a field of `size` zeros that take no place on the disk, inside a field `wrap`."""
    start = _delimited(field, b"")[:-1] + varint(size)
    with path.open("wb") as file:
        file.write(head + (b"" if wrap is None else _delimited(wrap, b"")[:-1] + varint(len(start) + size)) + start)
        file.truncate(file.tell() + size)
    return path


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize("field, wrap", [(6, None), (10, 7), (1, 7)], ids=["doc_string", "graph.doc_string", "graph.node"])
def test_more_than_two_gigabytes(field, wrap, tmp_path):
    head = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 18)]).SerializeToString()
    path, before = sparse(tmp_path / "m.onnx", head, field, 5 << 30, wrap), peak()
    with pytest.raises(InvalidModelError, match=r"m.onnx: a field of 53687091\d\d bytes"):
        infold.InferenceSession(path)
    assert peak() - before < 1 << 28


def test_a_file_of_zeros(tmp_path):
    (tmp_path / "m.onnx").touch()
    with (tmp_path / "m.onnx").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidModelError, match="field number 0"):
        load(tmp_path / "m.onnx")


def test_weights_larger_than_the_limit_stay_on_the_disk(tmp_path):
    """Raw data of a weight may exceed 2 GB, and is not read where it cannot be used."""
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [FLOATS], [helper.make_tensor_value_info("y", 1, None)]).SerializeToString()
    header = onnx.TensorProto(name="w", data_type=1, dims=[3 << 28, 1]).SerializeToString()
    size = 3 << 30
    tensor = header + _delimited(9, b"")[:-1] + varint(size)
    weight = _delimited(5, b"")[:-1] + varint(len(tensor) + size) + tensor
    head = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 18)]).SerializeToString()
    with (tmp_path / "m.onnx").open("wb") as file:
        file.write(head + _delimited(7, b"")[:-1] + varint(len(graph) + len(weight) + size) + graph + weight)
        file.truncate(file.tell() + size)
    before = peak()
    with pytest.raises(MemoryLimitError):
        infold.InferenceSession(tmp_path / "m.onnx", infold.SessionOptions(1, max_memory=1 << 26))
    assert peak() - before < 1 << 29


def nested(depth: int) -> bytes:
    """A model of Ifs inside one another, which no protobuf library would write."""
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y0"])], "g0", [], [helper.make_tensor_value_info("y0", 1, [2])])
    inner = inner.SerializeToString()
    for i in range(1, depth + 1):
        value = helper.make_tensor_value_info(f"n{i}", 1, [2])
        node = helper.make_node("If", ["c"], [f"y{i}"], else_branch=helper.make_graph(
            [helper.make_node("Neg", ["x"], [f"n{i}"])], f"e{i}", [], [value]))
        branch = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH).SerializeToString() + _delimited(6, inner)
        inner = _delimited(1, node.SerializeToString() + _delimited(5, branch))
        inner += onnx.GraphProto(name=f"g{i}", output=[helper.make_tensor_value_info(f"y{i}", 1, [2])]).SerializeToString()
    inner += onnx.GraphProto(input=[FLOATS, TRUTH]).SerializeToString()
    model = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)])
    return model.SerializeToString() + _delimited(7, inner)


def in_memory(depth: int) -> ir.Model:
    """The same as an onnx_ir.Model, which nobody has parsed."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2]))
    c = ir.Value(name="c", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    node = ir.node("Relu", [x])
    for i in range(depth):
        other = ir.node("Neg", [x])
        branches = [ir.Graph([], n.outputs, nodes=[n], name=f"{k}{i}") for k, n in (("t", node), ("e", other))]
        node = ir.node("If", [c], {"then_branch": branches[0], "else_branch": branches[1]})
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2])
    return ir.Model(ir.Graph([x, c], node.outputs, nodes=[node], name="g", opset_imports={"": 17}), ir_version=8)


def test_graphs_inside_graphs():
    feeds = {"x": np.float32([1, -1]), "c": np.array(True)}
    np.testing.assert_array_equal(infold.InferenceSession(nested(8)).run(None, feeds)[0], [1, 0])
    for model in (nested(40), nested(3000), in_memory(40), in_memory(3000)):
        with pytest.raises(InvalidModelError, match=r"MaxDepth|more than 32 deep|[Ee]rror parsing"):
            load(model)


def calling(levels: int, calls: int) -> onnx.ModelProto:
    """Functions of `calls` calls of the next one."""
    functions, opsets = [], [helper.make_opsetid("", 18), helper.make_opsetid("d", 1)]
    for i in range(levels):
        names = ["x", *(f"t{k}" for k in range(calls - 1)), "y"]
        op, domain = (f"f{i + 1}", "d") if i < levels - 1 else ("Neg", "")
        nodes = [helper.make_node(op, [a], [b], domain=domain) for a, b in pairwise(names)]
        functions.append(helper.make_function("d", f"f{i}", ["x"], ["y"], nodes, opsets))
    graph = helper.make_graph([helper.make_node("f0", ["x"], ["y"], domain="d")], "g", [FLOATS],
                              [helper.make_tensor_value_info("y", 1, [2])])
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=8)


def test_functions_that_call_functions():
    x = np.float32([1, -1])
    np.testing.assert_array_equal(infold.InferenceSession(calling(3, 3)).run(None, {"x": x})[0], -x)
    with pytest.raises(UnsupportedError, match=r"the model has 2199023255550 nodes"):
        load(calling(40, 2))
    with pytest.raises(InvalidModelError, match="call chain depth"):
        load(calling(3000, 1))
