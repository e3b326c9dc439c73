"""Models to serve: one that says how long it takes, and one with strings, integers and truth values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_tensor_value_info as value


def slow(path: Path) -> Path:
    """y = x after n steps of a Loop, each a product of matrices: some 25 microseconds. x [N, 256] float32, n [] int64."""
    weight = np.eye(256, dtype=np.float32)
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("MatMul", ["state", "w"], ["next"])], "body",
        [value("step", TensorProto.INT64, []), value("going", TensorProto.BOOL, []), value("state", TensorProto.FLOAT, None)],
        [value("goes", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, None)])
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)], "slow",
        [value("x", TensorProto.FLOAT, ["N", 256]), value("n", TensorProto.INT64, [])],
        [value("y", TensorProto.FLOAT, ["N", 256])], [numpy_helper.from_array(weight, "w")])
    return saved(graph, path)


def mixed(path: Path) -> Path:
    """Identities of a float16, an int8 and a bool vector; a lookup, whose index can lie outside; strings as they are."""
    types = {"half": TensorProto.FLOAT16, "small": TensorProto.INT8, "truth": TensorProto.BOOL, "text": TensorProto.STRING}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in types]
    nodes.append(helper.make_node("Gather", ["table", "index"], ["found"]))
    inputs = [value(name, kind, ["N"]) for name, kind in types.items()] + [value("index", TensorProto.INT64, ["K"])]
    outputs = [value(f"{name}_out", kind, ["N"]) for name, kind in types.items()] + [value("found", TensorProto.FLOAT, ["K"])]
    table = numpy_helper.from_array(np.arange(5, dtype=np.float32), "table")
    return saved(helper.make_graph(nodes, "mixed", inputs, outputs, [table]), path)


def saved(graph: onnx.GraphProto, path: Path) -> Path:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path
