"""Small models as protobuf, for tests of the ONNX importer."""

from __future__ import annotations

from onnx import TensorProto, helper


def build(nodes=None, *, inputs=("x",), outputs=("y",), initializers=(), opset=17, functions=(), ir_version=8):
    nodes = nodes if nodes is not None else [helper.make_node("Relu", ["x"], ["y"], name="act")]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3])  # noqa: E731
    graph = helper.make_graph(nodes, "g", [value(name) for name in inputs], [value(name) for name in outputs], list(initializers))
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("infold", 1)],
        functions=list(functions),
        ir_version=ir_version,
    )


def matmul(initializer):
    return build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], initializers=[initializer])
