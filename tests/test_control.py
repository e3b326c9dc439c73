"""If, Loop and Scan around native bodies, against onnxruntime, and what may go wrong inside."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

import infold
from infold import runtime

HEAD = '<ir_version: 10, opset_import: ["": 21]>'


def run(text: str, feeds: dict, weights: dict | None = None, **options):
    """infold's results and report, after a comparison with onnxruntime's."""
    model = onnx.parser.parse_model(HEAD + text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(w, name) for name, w in (weights or {}).items())
    session = infold.InferenceSession(model, infold.SessionOptions(**options))
    found = session.run(None, feeds)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    return found, session


CONVOLUTIONS = """net (float[1, 3, N, N] x, int64 n, bool yes) => (float[1, 3, N, N] y, float[T, 1, 3, N, N] all) {
    y, all = Loop <body = step (int64 i, bool go, float[1, 3, N, N] s) => (bool on, float[1, 3, N, N] t, float[1, 3, N, N] kept) {
        c = Conv <pads = [1, 1, 1, 1]> (s, w) t = Tanh(c) kept = Relu(c)
        limit = Constant <value = int64 {5}> () on = Less(i, limit)
    }> (n, yes, x)
}"""


@pytest.mark.parametrize("trips", [1, 3, 100])
@pytest.mark.parametrize("size", [4, 7])
def test_loop(trips, size):
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((1, 3, size, size)).astype(np.float32), "n": np.array(trips), "yes": np.array(True)}
    found, session = run(CONVOLUTIONS, feeds, {"w": 0.3 * rng.standard_normal((3, 3, 3, 3)).astype(np.float32)})
    assert session.report.fallbacks == [] and found[1].shape[0] == min(trips, 6)
    steps = session.profile(feeds, 2)
    assert all(step.native for step in steps) and "conv" in {step.op for step in steps}


def test_no_iteration():
    feeds = {"x": np.ones((1, 3, 4, 4), np.float32), "n": np.array(0), "yes": np.array(True)}
    model = onnx.parser.parse_model(HEAD + CONVOLUTIONS)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w"))
    y, kept = infold.InferenceSession(model).run(None, feeds)
    np.testing.assert_array_equal(y, feeds["x"])
    assert kept.shape[0] == 0


def test_state_that_grows():
    text = """net (float[N] x, int64 n, bool yes) => (float[M] y) {
        y = Loop <body = step (int64 i, bool go, float[K] s) => (bool on, float[L] t) {
            on = Identity(go) t = Concat <axis = 0> (s, x)
        }> (n, yes, x)
    }"""
    (y,), session = run(text, {"x": np.array([1, 2, 3], np.float32), "n": np.array(4), "yes": np.array(True)})
    assert y.shape == (15,) and session.report.fallbacks == []


@pytest.mark.parametrize("yes", [True, False])
def test_if_within_a_loop(yes):
    """Values from two levels out, a branch that only hands through, shapes that differ by branch."""
    text = """net (float[2, 4] x, int64 n, bool yes) => (float[A, 4] y) {
        doubled = Add(x, x)
        y = Loop <body = step (int64 i, bool go, float[B, 4] s) => (bool on, float[C, 4] t) {
            on = Identity(go) more = Mul(s, s)
            t = If (yes) <
                then_branch = many () => (float[D, 4] a) { p = MatMul(more, w) a = Concat <axis = 0> (p, doubled) },
                else_branch = same () => (float[E, 4] b) { b = Identity(more) }
            >
        }> (n, go, x)
    }"""
    text = text.replace("bool yes)", "bool yes, bool go)").replace("(int64 i, bool go,", "(int64 i, bool ok,").replace(
        "Identity(go)", "Identity(ok)")
    x = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4)
    feeds = {"x": x, "n": np.array(3), "yes": np.array(yes), "go": np.array(True)}
    _, session = run(text, feeds, {"w": np.eye(4, dtype=np.float32)[::-1].copy() / 2})
    assert session.report.fallbacks == []


CHOICE = """net (float[B, N] x, int64 n) => (float[B, K] y, float[B, K] z) {
    wanted = Constant <value = int64 {3}> () yes = Less(n, wanted)
    size = Size(x) few = Constant <value = int64 {9}> () small = Less(size, few)
    p = If (small) <then_branch = a () => (float[B, N] q) { q = Neg(x) },
                    else_branch = b () => (float[B, N] q) { q = Abs(x) }>
    y, z = If (yes) <then_branch = c () => (float[B, K] y, float[B, K] y) { s = MatMul(p, w) y = Tanh(s) },
                     else_branch = d () => (float[B, N] z, float[1, N] v) <float[1, 4] v = {1, 2, 3, 4}> { z = Add(p, v) }>
}"""


def test_if_is_planned_as_its_branch():
    """The first decided by shapes, the second by data: a plan for each size, and for each condition, of native steps only. Names
    inside may be those of results, a result may come twice, or be a constant."""
    weights = {"w": np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)}
    session = None
    for rows in (1, 3):
        for n in (1, 7, 2):
            x = np.linspace(-1, 2, 4 * rows, dtype=np.float32).reshape(rows, 4)
            p = -x if x.size < 9 else np.abs(x)
            model = onnx.parser.parse_model(HEAD + CHOICE)
            model.graph.initializer.append(onnx.numpy_helper.from_array(weights["w"], "w"))
            session = session or infold.InferenceSession(model)
            y, z = session.run(None, {"x": x, "n": np.array(n)})
            v = np.array([[1, 2, 3, 4]], np.float32)
            expected = (np.tanh(p @ weights["w"]),) * 2 if n < 3 else (p + v, v)
            np.testing.assert_allclose(y, expected[0], rtol=1e-5)
            np.testing.assert_allclose(z, expected[1], rtol=1e-5)
    assert session.report.plans == 6 and session.report.fallbacks == []
    steps = session.profile({"x": x, "n": np.array(1)})
    assert steps and {step.op for step in steps} <= {"map", "unary", "conv", "elementwise"}, steps


@pytest.mark.parametrize("change", [("then_branch", "other"), ("(yes)", "(both)"),
                                    ("c () => (float[B, K] y, float[B, K] y)", "c () => (float[B, K] y)")])
def test_if_that_contradicts_itself(change):
    text = CHOICE.replace("int64 n)", "int64 n, bool[2] both)").replace(*change)
    model = onnx.parser.parse_model(HEAD + text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 2), np.float32), "w"))
    feeds = {"x": np.ones((1, 4), np.float32), "n": np.array(1), "both": np.array([True, False])}
    with pytest.raises(infold.Error, match=r"If|branch"):
        infold.InferenceSession(model).run(None, feeds)


def test_what_shapes_decide_is_compiled(tmp_path):
    text = CHOICE[:CHOICE.index("    y, z")].replace("float[B, N] x", "float[1, 4] x").replace(
        "float[B, K] y, float[B, K] z", "float[1, 4] p") + "}"
    model = onnx.parser.parse_model(HEAD + text)
    infold.compile(model, tmp_path / "m.infold")
    x = np.array([[1, -2, 3, -4]], np.float32)
    (found,) = infold.InferenceSession(tmp_path / "m.infold").run(None, {"x": x, "n": np.array(0)})
    np.testing.assert_array_equal(found, -x)


def test_scan():
    text = """net (float[2] h, float[3, T] x) => (float[2] last, float[2, T] all) {
        last, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1], scan_output_axes = [1],
            scan_output_directions = [1], body = step (float[2] s, float[3] c) => (float[2] t, float[2] o) {
                row = Unsqueeze(c, zero) p = MatMul(row, w) q = Squeeze(p, zero) r = Add(q, s) t = Tanh(r) o = Neg(t)
        }> (h, x)
    }"""
    rng = np.random.default_rng(0)
    feeds = {"h": np.zeros(2, np.float32), "x": rng.standard_normal((3, 9)).astype(np.float32)}
    weights = {"w": rng.standard_normal((3, 2)).astype(np.float32), "zero": np.array([0])}
    assert run(text, feeds, weights)[1].report.fallbacks == []


STRETCH = """net (float[2, 5] a, float[2, 5] b, float[T, 2, 5] x, int64 n, bool yes) => (
        float[2, 5] p, float[2, 5] q, float[2] same, int64[N] numbers, float[N, 2, 5] all, float[N, 2] twos) {
    two = Constant <value = float[2] {2, 2}> ()
    p, q, same, numbers, all, twos = Loop <body = step (int64 i, bool go, float[2, 5] s, float[2, 5] t, float[2] c) => (
            bool on, float[2, 5] t, float[2, 5] u, float[2] d, int64 number, float[2, 5] r, float[2] e) {
        row = Gather <axis = 0> (x, i) r = Sub(t, row) h = MatMul(r, w) m = Mul(s, half) g = Add(h, m) u = Tanh(g)
        number = Add(i, i) d = Constant <value = float[2] {2, 2}> () e = Constant <value = float[2] {3, 4}> ()
        END
    }> (n, yes, a, b, two)
}"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("trips", "end"), [(1, "go"), (2, "go"), (300, "go"), (9000, "go"), (9000, "7"), (9000, "6000")])
def test_iterations_at_a_stretch(trips, end, threads, monkeypatch):
    """As one by one, to the bit: states that change places or stay, constants, iteration numbers, a condition that ends it, more
    iterations than are run in one go. What goes in is left as it is."""
    rng = np.random.default_rng(0)
    shapes = {"a": (2, 5), "b": (2, 5), "x": (trips, 2, 5)}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    before = {name: value.copy() for name, value in feeds.items()}
    text = STRETCH.replace("END", "on = Identity(go)" if end == "go" else f"""
        end = Constant <value = int64 {{{end}}}> () on = Less(i, end)""")
    feeds |= {"n": np.array(trips), "yes": np.array(True)}
    weights = {"w": 0.1 * rng.standard_normal((5, 5)).astype(np.float32), "half": np.array(0.5, np.float32)}
    found, session = run(text, feeds, weights, intra_op_num_threads=threads)
    assert len(found[3]) == (trips if end == "go" else int(end) + 1) and session.report.fallbacks == []
    for name, value in before.items():
        np.testing.assert_array_equal(feeds[name], value)
    assert all(step.native and step.ms >= 0 for step in session.profile(feeds, 2))
    calls = []
    monkeypatch.setattr(runtime, "repeat", lambda *args: calls.append(args))
    one_by_one = session.run(None, feeds)
    assert len(calls) == len(found[3])
    for one, other in zip(found, one_by_one, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("options", [{}, {"max_memory": 1 << 20}])
def test_scan_at_a_stretch(options, monkeypatch):
    """Axes and directions, more bytes than are asked for in one go; few calls."""
    text = """net (float[3] h, float[3, T] x, float[T, 2] z) => (float[3] last, float[3, T] all, float[T, 3, 40] wide) {
        last, all, wide = Scan <num_scan_inputs = 2, scan_input_axes = [1, 0], scan_input_directions = [1, 0],
            scan_output_axes = [1, 0], scan_output_directions = [0, 1],
            body = step (float[3] s, float[3] c, float[2] d) => (float[3] t, float[3] o, float[3, 40] v) {
                m = ReduceSum <keepdims = 1> (d) q = Mul(s, m) r = Add(q, c) t = Tanh(r) o = Neg(t)
                k = Unsqueeze(o, one) v = Expand(k, shape)
        }> (h, x, z)
    }"""
    rng = np.random.default_rng(0)
    steps = 300 if options else 5000
    feeds = {"h": np.ones(3, np.float32), "x": rng.standard_normal((3, steps)).astype(np.float32),
             "z": rng.standard_normal((steps, 2)).astype(np.float32)}
    calls, repeat = [], runtime.repeat
    monkeypatch.setattr(runtime, "repeat", lambda *args: calls.append(args) or repeat(*args))
    run(text, feeds, {"one": np.array([1]), "shape": np.array([3, 40])}, **options)
    assert len(calls) == (1 if options else 3)


def test_weights_of_a_body_are_packed_once():
    feeds = {"x": np.ones((1, 3, 4, 4), np.float32), "n": np.array(20), "yes": np.array(True)}
    weight = {"w": np.full((3, 3, 3, 3), 0.1, np.float32)}
    _, session = run(CONVOLUTIONS, feeds, weight)
    assert 27 * 4 * 4 <= session.report.weight_bytes < 40_000 and session.report.plans <= 3


def test_native_only():
    feeds = {"x": np.ones((1, 3, 4, 4), np.float32), "n": np.array(2), "yes": np.array(True)}
    run(CONVOLUTIONS, feeds, {"w": np.full((3, 3, 3, 3), 0.1, np.float32)}, native_only=True)
    inside = CONVOLUTIONS.replace("t = Tanh(c)", "t = Bernoulli(c)")
    with pytest.raises(infold.UnsupportedError, match="Bernoulli"):
        run(inside, feeds, {"w": np.full((3, 3, 3, 3), 0.01, np.float32)}, native_only=True)


def test_compiling_is_refused(tmp_path):
    model = onnx.parser.parse_model(HEAD + CONVOLUTIONS.replace("N, N", "4, 4"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w"))
    with pytest.raises(infold.UnsupportedError, match=r"Loop.*in the run"):
        infold.compile(model, tmp_path / "m.infold")


def test_memory_of_an_endless_loop():
    model = onnx.parser.parse_model(HEAD + CONVOLUTIONS.replace("Less(i, limit)", "Equal(i, i)"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full((3, 3, 3, 3), 0.1, np.float32), "w"))
    session = infold.InferenceSession(model, infold.SessionOptions(max_memory=1 << 20))
    with pytest.raises(infold.MemoryLimitError, match="Loop"):
        session.run(None, {"x": np.ones((1, 3, 9, 9), np.float32), "n": np.array(2**62), "yes": np.array(True)})


def test_interrupted():
    code = f"""if True:
        import signal, threading
        import numpy as np, onnx, infold
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process starts with it ignored
        text = '''{HEAD}net (float[4] x, int64 n, bool yes) => (float[4] y) {{
            y = Loop <body = step (int64 i, bool go, float[4] s) => (bool on, float[4] t) {{ on = Identity(go) t = Tanh(s) }}>
                (n, yes, x)
        }}'''
        session = infold.InferenceSession(onnx.parser.parse_model(text))
        feeds = {{"x": np.ones(4, np.float32), "n": np.array(1), "yes": np.array(True)}}
        before = session.run(None, feeds)
        try:
            threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
            session.run(None, feeds | {{"n": np.array(2**62)}})
        except KeyboardInterrupt:
            np.testing.assert_array_equal(session.run(None, feeds)[0], before[0])
            print("interrupted")
    """  # in a process of its own: Ctrl-C that comes a moment early or late would end the test runner
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stdout == "interrupted\n", done.stderr


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("Tanh(c)", "Tanh(nothing)"), "nothing"),
        (("t = Tanh(c)", "t = Add(c, w)"), "Add"),
        (("bool go, float[1, 3, N, N] s", "bool go, float[1, 3, N, N] s, float[1] more"), "input"),
        (("Less(i, limit)", "Less(i, s)"), "Less"),
    ],
)
def test_bodies_that_contradict_themselves(change, error):
    model = onnx.parser.parse_model(HEAD + CONVOLUTIONS.replace(*change))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w"))
    feeds = {"x": np.ones((1, 3, 4, 4), np.float32), "n": np.array(2), "yes": np.array(True)}
    with pytest.raises(infold.Error, match=error):
        infold.InferenceSession(model).run(None, feeds)


def test_scripted_by_torch(tmp_path):
    torch = pytest.importorskip("torch")

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = torch.nn.Linear(6, 6), torch.nn.Linear(6, 2)

        def forward(self, x, n: int):
            for i in range(n):
                x = torch.tanh(self.cell(x)) if i % 2 == 0 else torch.relu(x)
            return self.head(x)

    torch.manual_seed(0)
    module, x = Module().eval(), torch.randn(3, 6)
    torch.onnx.export(torch.jit.script(module), (x, torch.tensor(5)), tmp_path / "m.onnx", dynamo=False, input_names=["x", "n"])
    session = infold.InferenceSession(tmp_path / "m.onnx")
    for n in (5, 2, 0):
        (found,) = session.run(None, {"x": x.numpy(), "n": np.array(n)})
        np.testing.assert_allclose(found, module(x, n).detach().numpy(), atol=1e-6)
    assert session.report.fallbacks == []
