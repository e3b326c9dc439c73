"""Sessions kept between processes: the same bits, ready at once; never those of another file, and a damaged entry does no harm."""
import os
import subprocess
import sys
import warnings

import numpy as np
import onnx
import pytest

import infold
from infold import cache
from infold.compiled import CompiledRunner

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,3,12,12] x) => (float[1,8] y) {
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)  n = BatchNormalization (c, one, zero, zero, one)  r = Relu (n)
    p = GlobalAveragePool (r)  f = Flatten (p)  y = Gemm <transB = 1> (f, m)
}"""
FEEDS = {"x": np.random.default_rng(4).standard_normal((1, 3, 12, 12)).astype(np.float32)}


def model(seed: int = 3, text: str = TEXT) -> onnx.ModelProto:
    rng, proto = np.random.default_rng(seed), onnx.parser.parse_model(text)
    tensors = {"w": rng.standard_normal((9, 3, 3, 3)), "m": rng.standard_normal((8, 9)),
               "one": np.full(9, 1.5), "zero": np.full(9, 0.25)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in tensors.items())
    return proto


@pytest.fixture
def path(tmp_path):
    onnx.save(model(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture(autouse=True)
def young(monkeypatch):
    """Files may be as young as these tests make them."""
    monkeypatch.setattr(cache, "RECENT", -60)


@pytest.fixture
def session(tmp_path):
    def make(source, **options) -> infold.InferenceSession:
        return infold.InferenceSession(source, infold.SessionOptions(**{"cache_dir": tmp_path / "kept", **options}))
    return make


def kept(made: infold.InferenceSession) -> bool:
    return isinstance(made.runner, CompiledRunner)


def entries(tmp_path) -> list:
    return sorted((tmp_path / "kept").glob("*")) if (tmp_path / "kept").exists() else []


def same(a: infold.InferenceSession, b: infold.InferenceSession) -> bool:
    one, other = a.run(None, FEEDS)[0], b.run(None, FEEDS)[0]
    assert np.abs(one).max() > 0.1
    return one.tobytes() == other.tobytes()


def test_the_second_session_maps_what_the_first_kept(path, tmp_path, session):
    first, second, plain = session(path), session(path), session(path, cache_dir="")
    assert (kept(first), kept(second), kept(plain)) == (False, True, False)
    assert same(first, second) and same(plain, second)
    assert [entry.suffix for entry in entries(tmp_path)] == [".infold"]
    assert second.report.fold == plain.report.fold and second.report.fold.folded == 1
    assert [s.name for s in second.profile(FEEDS, 1)] == [s.name for s in plain.profile(FEEDS, 1)]
    np.testing.assert_array_equal(*(s.run_intermediates(FEEDS, ["r"])["r"] for s in (second, plain)))
    assert {n.op_type for n in second.model.graph} == {n.op_type for n in plain.model.graph}


def test_a_new_process_needs_no_onnx(path, tmp_path, session):
    expected = session(path).run(None, FEEDS)[0]
    np.save(tmp_path / "x.npy", FEEDS["x"])
    code = ("import sys, numpy, infold; s = infold.InferenceSession(sys.argv[1]);"
            "print('onnx' in sys.modules, s.run(None, {'x': numpy.load(sys.argv[2])})[0].tobytes().hex())")
    done = subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "x.npy")], capture_output=True, text=True,
                          check=True, env={**os.environ, "INFOLD_CACHE_DIR": str(tmp_path / "kept")})
    assert done.stdout.split() == ["False", expected.tobytes().hex()]


def test_another_file_of_the_same_size_is_another_model(path, session):
    first = session(path)
    size = path.stat().st_size
    onnx.save(model(seed=5), path)
    assert path.stat().st_size == size
    anew, again = session(path), session(path)
    assert not kept(anew) and kept(again) and same(anew, again) and not same(first, again)


def test_the_same_contents_are_the_same_model(path, session):
    first = session(path)
    os.utime(path, ns=(1, 1))
    assert kept(session(path))
    contents = path.read_bytes()
    path.unlink()
    path.write_bytes(contents)
    assert kept(session(path)) and same(first, session(path))


def test_external_data_belongs_to_the_model(tmp_path, session):
    def save(seed: int):
        onnx.save(model(seed), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)

    (tmp_path / "m.data").unlink(missing_ok=True)
    save(3)
    first, second = session(tmp_path / "m.onnx"), session(tmp_path / "m.onnx")
    assert kept(second) and same(first, second)
    whole = (tmp_path / "m.onnx").read_bytes()
    (tmp_path / "m.data").unlink()
    save(5)
    assert (tmp_path / "m.onnx").read_bytes() == whole
    anew = session(tmp_path / "m.onnx")
    assert not kept(anew) and not same(first, anew) and same(anew, session(tmp_path / "m.onnx"))
    with pytest.raises(infold.InvalidModelError, match="has changed"):
        second.run_intermediates(FEEDS, ["r"])
    (tmp_path / "m.data").unlink()
    with pytest.raises(infold.ExternalDataError):
        session(tmp_path / "m.onnx")


@pytest.mark.parametrize("options", [{"precision": "high"}, {"intra_op_num_threads": 7}, {"algorithms": {"*": "direct"}},
                                     {"tuned": False}, {"training_mode": "batch"}], ids=lambda o: next(iter(o)))
def test_what_decides_a_session_is_part_of_the_key(path, tmp_path, session, options):
    session(path)
    assert not kept(session(path, **options)) and kept(session(path, **options)) and len(entries(tmp_path)) == 2


def test_damaged_entries_are_made_anew(path, tmp_path, session):
    plain = session(path)
    [entry] = entries(tmp_path)
    whole = entry.read_bytes()
    wrong = whole.replace(b'"tap"', b'"pat"').replace(b'"made"', b'"mode"')
    for damage in (b"", whole[:100], whole[:5000], whole[:60] + b"~" + whole[61:], b"X" * len(whole), wrong):
        entry.write_bytes(damage)
        with pytest.warns(UserWarning, match="ignored and made anew"):
            anew = session(path)
        assert not kept(anew) and same(plain, anew) and entry.read_bytes() == whole and kept(session(path))


def test_what_has_no_single_plan_is_not_kept(tmp_path, session):
    texts = {"open": TEXT.replace("float[1,3,12,12] x", "float[N,3,12,12] x"),
             "host": TEXT.replace("y = Gemm", "q = Gemm").replace("\n}", "\n d = Det (q2)  y = Add (q, d) }").replace(
                 "q = Gemm <transB = 1> (f, m)", "q = Gemm <transB = 1> (f, m)  t = Transpose <perm = [1, 0]> (q)"
                 "  q2 = MatMul (t, q)"),
             "optional": TEXT.replace("float[1,3,12,12] x", "float[1,3,12,12] x, float[8,9] m")}
    for name, text in texts.items():
        onnx.save(model(text=text), tmp_path / f"{name}.onnx")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = [session(tmp_path / f"{name}.onnx") for _ in range(2)]
        assert not kept(made[1]) and same(*made), name
    assert entries(tmp_path) == []


def test_young_files_are_not_kept(path, tmp_path, session, monkeypatch):
    monkeypatch.setattr(cache, "RECENT", 2)
    session(path)
    assert entries(tmp_path) == []


def test_tuning_counts(path, session, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    session(path)
    assert kept(session(path))
    (tmp_path / "infold/tune").mkdir(parents=True)
    (tmp_path / "infold/tune/new.json").write_text("{}")
    assert not kept(session(path)) and kept(session(path))


def test_a_folder_that_cannot_be_written_only_warns(path, tmp_path, session):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert not kept(session(path, cache_dir=tmp_path / "file"))


def test_compiling_takes_ordinary_sessions(path, tmp_path, session, monkeypatch):
    monkeypatch.setenv("INFOLD_CACHE_DIR", str(tmp_path / "kept"))
    assert not kept(infold.InferenceSession(path)) and kept(infold.InferenceSession(path))
    assert infold.compile(path, tmp_path / "m.infold")["plans"] == 1
