"""Compiled models: the same bits as an ordinary session, at once and without onnx; and no file, however wrong, does harm."""
import copy
import hashlib
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

import infold
from infold import _native, compiled

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,3,12,12] x) => (float[N,8] y, float[N,9,24,24] big) {
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)  n = BatchNormalization (c, one, zero, zero, one)  r = Relu (n)
    d = Conv <group = 9, kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r, dw)  s = Add (d, r)
    big = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (s, , scales)
    p = GlobalAveragePool (s)  f = Flatten (p)  y = Gemm <transB = 1> (f, m)
}"""


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(3)
    proto = onnx.parser.parse_model(TEXT)
    tensors = {"w": rng.standard_normal((9, 3, 3, 3)), "dw": rng.standard_normal((9, 1, 3, 3)), "m": rng.standard_normal((8, 9)),
               "one": np.full(9, 1.5), "zero": np.full(9, 0.25), "scales": np.array([1, 1, 2, 2])}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in tensors.items())
    onnx.checker.check_model(proto)
    return proto


@pytest.fixture(scope="module")
def feeds():
    return {"x": np.random.default_rng(4).standard_normal((2, 3, 12, 12)).astype(np.float32)}


@pytest.fixture
def path(model, tmp_path):
    infold.compile(model, tmp_path / "m.infold", [{"x": (2, 3, 12, 12)}, {"x": (1, 3, 12, 12)}])
    return tmp_path / "m.infold"


@pytest.fixture
def bare(model, tmp_path):
    infold.compile(model, tmp_path / "bare.infold", [{"x": (2, 3, 12, 12)}], fallback=False)
    return tmp_path / "bare.infold"


def same(found, expected) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b)
        assert np.abs(b).max() > 0.1


def test_the_same_bits_as_an_ordinary_session(model, path, feeds):
    ordinary, ready = infold.InferenceSession(model), infold.InferenceSession(path)
    assert isinstance(ready.runner, compiled.CompiledRunner)
    same(ready.run(None, feeds), ordinary.run(None, feeds))
    same(ready.run(None, {"x": feeds["x"][:1]}), ordinary.run(None, {"x": feeds["x"][:1]}))
    assert (ready.get_inputs(), ready.get_outputs()) == (ordinary.get_inputs(), ordinary.get_outputs())
    assert ready.report.fold == ordinary.report.fold and ready.report.fold.folded == 1
    assert [s.op for s in ready.profile(feeds, 1)] == [s.op for s in ordinary.profile(feeds, 1)]
    same([ready.run_intermediates(feeds, ["s"])["s"]], [ordinary.run_intermediates(feeds, ["s"])["s"]])
    with pytest.raises(infold.InvalidInputError, match="dimension 1 must be 3"):
        ready.run(None, {"x": feeds["x"][:, :2]})


def test_other_shapes_and_machines_use_the_model_inside(model, path, feeds, monkeypatch):
    x = {"x": np.concatenate([feeds["x"], feeds["x"]])}
    same(infold.InferenceSession(path).run(None, x), infold.InferenceSession(model).run(None, x))
    if len(_native.isa_names()) > 1:
        monkeypatch.setenv("INFOLD_ISA", _native.isa_names()[-1])
        same(infold.InferenceSession(path).run(None, feeds), infold.InferenceSession(model).run(None, feeds))


def test_steps_side_by_side_stay_so(tmp_path):
    """A chain of convolutions: each thread has a track of its own, in a file as in an ordinary session."""
    rng = np.random.default_rng(6)
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]> g (float[1,8,24,20] x) => (float[1,8,24,20] y) {
        e = Conv (x, w)  d = Conv <group = 40, kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (e, dw)  y = Conv (d, p) }""")
    tensors = {"w": (40, 8, 1, 1), "dw": (40, 1, 3, 3), "p": (8, 40, 1, 1)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
                                   for name, shape in tensors.items())
    options = infold.SessionOptions(intra_op_num_threads=2, algorithms={"*": "chain"})
    infold.compile(proto, tmp_path / "chain.infold", sess_options=options)
    sessions = [infold.InferenceSession(source, options) for source in (proto, tmp_path / "chain.infold")]
    tracks = [[(step.section, step.track) for step in session.runner.plans[0].steps] for session in sessions]
    assert tracks[0] == tracks[1] and {(1, 0), (1, 1)} <= set(tracks[0])
    x = {"x": rng.standard_normal((1, 8, 24, 20)).astype(np.float32)}
    same(sessions[1].run(None, x), sessions[0].run(None, x))


def test_an_index_in_memory_is_not_read_beside_other_steps(tmp_path):
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[4,3] x, int64[2] i) => (float[2,3] y) { y = Gather <axis = 0> (x, i) }')
    infold.compile(proto, tmp_path / "gather.infold")
    header, body = header_of((tmp_path / "gather.infold").read_bytes())
    gather = next(step for step in header["plans"][0]["steps"] if step[0] == "gather")
    gather[-2:] = 1, 0
    (tmp_path / "broken.infold").write_bytes(signed(header, body))
    with pytest.raises(infold.InvalidModelError, match="beside others"):
        infold.InferenceSession(tmp_path / "broken.infold")


def test_without_the_model_inside_it_says_what_does_not_fit(bare, feeds, monkeypatch):
    session = infold.InferenceSession(bare)
    assert session.run(None, feeds)[0].shape == (2, 8)
    with pytest.raises(infold.UnsupportedError, match=r"no plan for the shapes.*without the model"):
        session.run(None, {"x": feeds["x"][:1]})
    monkeypatch.setattr(compiled, "__version__", "0.0.0")
    with pytest.raises(infold.UnsupportedError, match=r"compiled for .* without the model"):
        infold.InferenceSession(bare)


def test_onnx_is_not_imported(path):
    code = """if True:
        import infold, numpy, sys
        session = infold.InferenceSession(sys.argv[1])
        session.run(None, {"x": numpy.ones((1, 3, 12, 12), numpy.float32)})
        session.report, session.get_inputs()
        print({"onnx", "onnx_ir", "google.protobuf", "sympy"} & set(sys.modules))"""
    assert subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_what_cannot_be_compiled_is_refused_with_the_reason(tmp_path, model):
    def refused(text: str, error=infold.UnsupportedError) -> str:
        with pytest.raises(error) as caught:
            infold.compile(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}'), tmp_path / "no.infold")
        assert not list(tmp_path.glob("*no.infold*"))
        return str(caught.value)

    assert "runs in Python" in refused("g (float[3,3] x) => (float y) { y = Det (x) }")
    assert "depend" in refused("g (float[4] x) => (float[4] y) { n = NonZero (x) t = Transpose (n) y = GatherND (x, t) }")
    assert "not an array" in refused("g (string[2] x) => (string[2] y) { y = Identity (x) }", infold.Error)
    assert "leaves its shape open" in refused("g (float[N] x) => (float[N] y) { y = Relu (x) }", infold.InvalidInputError)


def header_of(data: bytes) -> tuple[dict, bytes]:
    _, length, _ = compiled.PREAMBLE.unpack_from(data)
    return json.loads(data[compiled.PREAMBLE.size:compiled.PREAMBLE.size + length]), data[compiled.PREAMBLE.size + length:]


def signed(header: dict, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + compiled.PREAMBLE.size) % compiled.PAGE)
    return compiled.PREAMBLE.pack(compiled.MAGIC, len(text), hashlib.sha256(text).digest()) + text + body


def test_truncated_and_damaged_files(bare, tmp_path):
    data, broken = bare.read_bytes(), tmp_path / "broken.infold"
    places = [0, 7, 47, 48, 1000, *range(4096, len(data) - 64, len(data) // 20)]  # the last line may be padding
    for size in places:
        broken.write_bytes(data[:size])
        with pytest.raises(infold.InvalidModelError, match=r"broken.infold"):
            infold.InferenceSession(broken)
    for at in (0, 9, 20, 48, 60, 3000):
        broken.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
        with pytest.raises(infold.InvalidModelError):
            infold.InferenceSession(broken)
    with pytest.raises(infold.InvalidModelError, match="cannot be opened"):
        infold.InferenceSession(tmp_path / "none.infold")


def test_names_that_are_no_words(bare, tmp_path, feeds):
    """(Mutants of whole headers are in tests/fuzz.)"""
    header, body = header_of(bare.read_bytes())
    header["inputs"].append({**header["inputs"][0], "name": 7})
    header["plans"][0]["feeds"]["7"] = [1, 3, 12, 12]
    (tmp_path / "broken.infold").write_bytes(signed(header, body))
    with pytest.raises(infold.InvalidInputError, match="'7' is missing"):
        infold.InferenceSession(tmp_path / "broken.infold").run(None, feeds)


def test_steps_write_to_their_own_memory_only(bare, tmp_path):
    header, body = header_of(bare.read_bytes())
    number = next(i for i, step in enumerate(header["plans"][0]["steps"]) if step[0] == "conv")
    place = list(_native.operations()["conv"][2].split()).index("out")
    for target, reason in (([-1, 0], "where it must not"), ([1, 0], "where it must not"), ([-1, 1 << 50], "where it must not"),
                           ([99, 0], "a number from"), ([0, 1], "odd offset"), ([0, 1 << 40], "outside its buffer")):
        mutant = copy.deepcopy(header)
        mutant["plans"][0]["steps"][number][2][place] = target
        broken = tmp_path / "broken.infold"
        broken.write_bytes(signed(mutant, body))
        with pytest.raises(infold.InvalidModelError, match=reason):
            infold.InferenceSession(broken)


def test_overlapping_arrays(bare, tmp_path):
    header, body = header_of(bare.read_bytes())
    header["arrays"][1][0] = header["arrays"][0][0]
    broken = tmp_path / "broken.infold"
    broken.write_bytes(signed(header, body))
    with pytest.raises(infold.InvalidModelError, match="overlaps"):
        infold.InferenceSession(broken)


def test_every_argument_is_known_to_be_read_or_written():
    """A new operation's arguments must be sorted into what a file may put into constants and what is written."""
    arguments = {a.rstrip("?") for _, _, args, _ in _native.operations().values() for a in args.split()}
    assert arguments - compiled.READ == {"out", "count", "h", "cell", "mean", "spread", "stage", "scratch"}


def test_a_check_sees_no_contents_that_may_change():
    """A table on read-only memory (a mapped file) is refused by the operation that must know its contents."""
    image, taps = np.zeros(64, np.float32), np.zeros(1, np.int64)

    def status(table: np.ndarray) -> int:
        from infold.plan.program import operations

        op = operations()["conv"]
        params = op.pack({"n": [1] * 4, "taps": 1, "k": 1, "groups": 1, "columns": 1, "panels_per_block": 1, "chunk": 64})
        places = {"in": (image, 0), "w": (image, 0), "bias": (image, 0), "tap": (table, 0), "out": (0, 0)}
        return _native.Program(_native.isa_names()[0], [64]).append(op.index, params, [places.get(a) for a in op.args])

    assert status(taps) == 0
    taps.flags.writeable = False
    assert status(taps) == 3


def test_images_of_bf16_numbers_may_lie_at_odd_words(tmp_path, monkeypatch):
    """A picture of three channels, rounded, with a border: its rows begin at any multiple of 2 bytes."""
    monkeypatch.setenv("INFOLD_ISA", "scalar")
    rng = np.random.default_rng(5)
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[1,3,12,11] x) => (float[1,8,6,6] y) {
        y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)
    }""")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal((8, 3, 3, 3)).astype(np.float32), "w"))
    options = infold.SessionOptions(precision="medium", algorithms={"*": "bf16"}, intra_op_num_threads=1)
    feeds = {"x": rng.standard_normal((1, 3, 12, 11)).astype(np.float32)}
    expected = infold.InferenceSession(proto, options).run(None, feeds)
    infold.compile(proto, tmp_path / "m.infold", sess_options=options)
    steps = header_of((tmp_path / "m.infold").read_bytes())[0]["plans"][0]["steps"]
    assert any(place is not None and place[1] % 4 for _, _, args, *_ in steps for place in args)
    same(infold.InferenceSession(tmp_path / "m.infold").run(None, feeds), expected)
