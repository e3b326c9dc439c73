"""One node at a time: subgraphs with outer values, functions, strings, sequences, and errors that name the node."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from reference_harness import run_node

from infold.errors import InvalidModelError, ShapeError, UnsupportedError
from infold.reference import NodeRunner, inline

FUNCTION = """<ir_version: 8, opset_import: ["": 17, "infold": 1]>
agraph (float[N, 3] x) => (float[N, 3] y) { h = infold.Affine <slope = 3.0> (x)  y = infold.Twice (h) }
<domain: "infold", opset_import: ["": 17]>
Affine <slope: float = 2.0, shift: float = 1.0> (a, b) => (c) {
  s = Constant <value_float: float = @slope> ()  t = Constant <value_float: float = @shift> ()
  p = Mul (a, s)  c = Add (p, t) }
<domain: "infold", opset_import: ["": 17, "infold": 1]>
Twice (a) => (c) { d = infold.Affine (a)  c = Add (a, d) }
"""


def graph_runner(text: str, index: int = -1) -> NodeRunner:
    """Prepare one node (default: the last) of a model given as ONNX text."""
    model = inline(ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 17]> {text}')))
    return NodeRunner(list(model.graph)[index], model.graph.opset_imports)


def test_if_reads_outer_values():
    runner = graph_runner("""g (bool c, float[2] x, float[2] unused) => (float[2] y) {
        a = Neg (x)
        y = If (c) <then_branch = t () => (float[2] p) { p = Add (a, x) },
                    else_branch = e () => (float[2] q) { q = Mul (a, x) }> }""")
    x = np.array([2.0, 3.0], np.float32)
    assert runner.captured == ("a", "x")
    scope = {"a": -x, "x": x}
    assert runner.run([np.array(True)], scope)[0].tolist() == [0, 0]
    assert runner.run([np.array(False)], scope)[0].tolist() == [-4, -9]


def test_nested_subgraphs_capture_through_each_other():
    runner = graph_runner("""g (bool c, float[2] x) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] p) {
                p = If (c) <then_branch = tt () => (float[2] r) { r = Neg (x) },
                            else_branch = te () => (float[2] s) { s = Abs (x) }> },
            else_branch = e () => (float[2] q) { q = Identity (x) }> }""")
    assert runner.captured == ("c", "x")
    x = np.array([2.0, -3.0], np.float32)
    assert runner.run([np.array(True)], {"c": np.array(True), "x": x})[0].tolist() == [-2, 3]


LOOP = """g (int64 n, bool c, float[2] x, float[2] step) => (float[2] y, float[m, 2] all) {{
    y, all = Loop ({inputs}) <body = b (int64 i, bool go, float[2] s) => (bool go_on, float[2] t, float[2] out) {{
        t = Add (s, step)  out = Identity (t)  go_on = Identity (go) }}> }}"""


def test_loop_stacks_its_scan_outputs_and_needs_no_condition():
    x, step = np.array([1.0, 2.0], np.float32), np.array([10.0, 20.0], np.float32)
    for inputs, condition in (("n, , x", None), ("n, c, x", np.array(True))):
        runner = graph_runner(LOOP.format(inputs=inputs))
        y, everything = runner.run([np.array(3), condition, x], {"step": step})
        assert y.tolist() == [31, 62] and everything.tolist() == [[11, 22], [21, 42], [31, 62]]
        y, everything = runner.run([np.array(0), condition, x], {"step": step})
        assert y is x and everything.shape == (0, 2) and everything.dtype == np.float32
    assert graph_runner(LOOP.format(inputs="n, c, x")).run([np.array(3), np.array(False), x], {"step": step})[0] is x


def test_loop_of_scalars():
    runner = graph_runner("""g (int64 n, float s) => (float y, float[m] all) {
        y, all = Loop (n, , s) <body = b (int64 i, bool go, float a) => (bool go_on, float t, float out) {
            t = Add (a, a)  out = Identity (t)  go_on = Identity (go) }> }""")
    assert runner.run([np.array(3), None, np.array(1.0, np.float32)])[1].tolist() == [2, 4, 8]


SCAN = """g (float[2] s, float[{shape}] x) => (float[2] y, float[{shape}] all) {{
    y, all = Scan <num_scan_inputs = 1 {attributes}, body = b (float[2] a, float[2] v) => (float[2] t, float[2] out) {{
        t = Add (a, v)  out = Identity (t) }}> (s, x) }}"""


@pytest.mark.parametrize(
    "attributes, axis, backwards",
    [
        ("", 0, False),
        (", scan_input_directions = [1], scan_output_directions = [1]", 0, True),
        (", scan_input_axes = [1], scan_output_axes = [1]", 1, False),
    ],
)
def test_scan_axes_and_directions(attributes, axis, backwards):
    start, x = np.zeros(2, np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    rows = x[::-1] if backwards else x
    total = np.cumsum(rows, axis=0)
    runner = graph_runner(SCAN.format(shape="3, 2" if axis == 0 else "2, 3", attributes=attributes))
    y, everything = runner.run([start, x if axis == 0 else x.T])
    assert np.array_equal(y, x.sum(axis=0))
    assert np.array_equal(everything, (total[::-1] if backwards else total) if axis == 0 else total.T)


def test_scan_of_opset_8_runs_each_sample_for_its_length():
    model = onnx.parser.parse_model(
        '<ir_version: 4, opset_import: ["": 8]>' + SCAN.format(shape="2, 3, 2", attributes="").replace("(s, x)", "(, s, x)")
    )
    runner = NodeRunner(next(iter(ir.from_proto(model).graph)), {"": 8})
    state, x = np.zeros((2, 2), np.float32), np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    y, everything = runner.run([np.array([3, 1]), state, x])
    assert np.array_equal(y, [x[0].sum(axis=0), x[1, 0]])
    assert np.array_equal(everything[0], np.cumsum(x[0], axis=0)) and everything[1].tolist() == [[6, 7], [0, 0], [0, 0]]


def test_functions_are_inlined_with_their_attributes_defaults_and_absent_inputs():
    model = ir.from_proto(onnx.parser.parse_model(FUNCTION))
    inlined = inline(model)
    assert len(model.functions) == 2 and not inlined.functions and inlined.graph.outputs[0].name == "y"
    values = {"x": np.array([[1.0, 2, 3]], np.float32)}
    for node in inlined.graph:
        runner = NodeRunner(node, inlined.graph.opset_imports)
        values.update(zip(runner.outputs, runner.run([values[name] for name in runner.inputs])))
    h = 3 * values["x"] + 1
    assert np.array_equal(values["y"], h + (2 * h + 1)) and values["y"].dtype == np.float32


def test_strings_and_sequences_pass_through():
    words = np.array([["a", "b"], ["c", "d"]], dtype=object)
    assert run_node("Concat", words, words, axis=0).tolist() == [["a", "b"], ["c", "d"]] * 2
    x, y = np.ones((2, 2), np.float32), np.zeros((1, 2), np.float32)
    pair = run_node("SequenceConstruct", x, y)
    assert [item.shape for item in pair] == [(2, 2), (1, 2)]
    assert np.array_equal(run_node("SequenceAt", pair, np.array(1)), y)
    assert np.array_equal(run_node("ConcatFromSequence", pair, axis=0), np.concatenate([x, y]))


def test_only_declared_outputs_come_back():
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    runner = NodeRunner(
        ir.node("LayerNormalization", [ir.Value(name="x"), ir.Value(name="s")], outputs=[ir.Value(name="y")]), {"": 17}
    )
    assert len(runner.run([x, np.ones(3, np.float32)])) == 1


def test_half_precision_convolution_accumulates_in_float32():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 64, 8, 8)).astype(np.float16), rng.standard_normal((4, 64, 3, 3)).astype(np.float16)
    exact = run_node("Conv", x.astype(np.float64), w.astype(np.float64))
    y = run_node("Conv", x, w)
    assert y.dtype == np.float16 and np.abs(y - exact).max() <= np.abs(exact).max() * 2.0**-11


@pytest.mark.parametrize(
    "node, opsets, error, says",
    [
        (
            ir.node("FusedConv", [], name="odd", domain="com.microsoft", num_outputs=1),
            {"": 17, "com.microsoft": 1},
            UnsupportedError,
            r"'odd' \(com.microsoft::FusedConv\).*opset 1",
        ),
        (ir.node("NoSuchThing", [], name="odd", num_outputs=1), {"": 17}, UnsupportedError, r"'odd' \(NoSuchThing\)"),
        (
            ir.node("Concat", [ir.Value(name="x")], name="cat", num_outputs=1),
            {"": 17},
            InvalidModelError,
            r"'cat' \(Concat\).*axis",
        ),
    ],
)
def test_nodes_that_cannot_be_prepared(node, opsets, error, says):
    with pytest.raises(error, match=says):
        NodeRunner(node, opsets)


def test_failures_name_the_node_and_its_inputs():
    runner = NodeRunner(ir.node("MatMul", [ir.Value(name="a"), ir.Value(name="b")], name="product", num_outputs=1), {"": 17})
    with pytest.raises(ShapeError, match=r"'product' \(MatMul\) fails on inputs \['float32\[2, 3\]', 'float32\[2, 3\]'\]"):
        runner.run([np.ones((2, 3), np.float32)] * 2)
    with pytest.raises(InvalidModelError, match=r"'product'.*mismatch"):
        runner.run([np.ones((2, 3), np.float32), np.ones((3, 2), np.int32)])
