"""What a node reads, subgraphs included, and who reads a value."""
from __future__ import annotations

import onnx
import onnx_ir as ir

from infold.plan.graph import GraphView, reads

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (bool c, float[2] x, float[2] y, float[2] z) => (float[2] out, float[2] s) {
    a = Add (x, x)
    b = Mul (a, y)
    out = If (c) <
        then_branch = t () => (float[2] p) { q = Add (b, x) r = If (c) <then_branch = u () => (float[2] v) { v = Add (q, z) },
                                                                       else_branch = w () => (float[2] n) { n = Neg (q) }>
                                             p = Relu (r) },
        else_branch = e () => (float[2] b) {}
    >
    s = Sub (b, z)
}"""


def graph() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(TEXT))


def test_reads():
    nodes = list(graph().graph)
    assert [reads(n) for n in nodes] == [["x"], ["a", "y"], ["c", "b", "x", "z"], ["b", "z"]]


def test_readers():
    model = graph()
    nodes = list(model.graph)
    view = GraphView(model, nodes, ["out", "s"])
    assert view.readers("x") == [nodes[0], nodes[2]] and view.readers("b") == [nodes[2], nodes[3]] and view.readers("out") == []
    assert view.only_reader("a") is nodes[1] and view.only_reader("b") is None and view.only_reader("c") is nodes[2]
    assert GraphView(model, nodes, ["a"]).only_reader("a") is None  # it leaves the graph
    assert GraphView(model, nodes[3:], ["s"]).only_reader("b") is nodes[3]
    assert view.opset(nodes[0]) == 17
