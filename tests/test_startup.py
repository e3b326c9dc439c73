"""What a session imports, reads and keeps: little, once, and in one form."""
import gc
import mmap
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import infold
from infold import files

RNG = np.random.default_rng(7)


def run_python(code: str, *arguments: object) -> str:
    """The output of a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def conv_model(weights: list[np.ndarray], channels: int, size: int = 4, batch: int | str = 1, groups: int = 1) -> onnx.ModelProto:
    """A chain of 1x1 and 3x3 convolutions (padding that keeps the size), one for each weight."""
    nodes, value = [], "x"
    for i, weight in enumerate(weights):
        pad = weight.shape[2] // 2
        nodes.append(helper.make_node("Conv", [value, f"w{i}", f"b{i}"], [f"y{i}"], f"conv{i}", pads=[pad] * 4, group=groups,
                                      kernel_shape=weight.shape[2:]))
        value = f"y{i}"
    last = len(weights) - 1
    tensors = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    tensors += [numpy_helper.from_array(np.ones(len(w), np.float32), f"b{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(
        nodes, "odd", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, channels, size, size])],
        [helper.make_tensor_value_info(f"y{last}", TensorProto.FLOAT, [batch, len(weights[last]), size, size])], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def random_weight(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


@pytest.fixture
def path(tmp_path):
    model = conv_model([random_weight(6, 5, 3, 3), random_weight(70, 6, 1, 1)], channels=5)
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_import_is_light():
    loaded = run_python("import infold, sys; print(*sys.modules)").split()
    assert "infold._native" in loaded and not {"onnx", "onnx_ir", "sympy", "google.protobuf"} & set(loaded)


def test_a_session_imports_neither_sympy_nor_the_reference(path):
    code = "import infold, sys; infold.InferenceSession(sys.argv[1]); print(*sys.modules)"
    loaded = set(run_python(code, path).split())
    assert "onnx_ir" in loaded and not {"sympy", "hashlib", "argparse", "onnx.reference", "infold.reference"} & loaded


def test_symbolic_dimensions_find_sympy_later():
    code = """if True:
        import infold, sys
        infold.load
        import onnx_ir
        print((onnx_ir.SymbolicDim("N") + 1).evaluate({"N": 4}), onnx_ir.SymbolicDim("max(N, 3)").evaluate({"N": 2}))
        import sympy
        print(sympy.__name__, sympy.Symbol("q"))"""
    assert run_python(code).split() == ["5", "3", "sympy", "q"]


def test_hashes_are_found_later(path):
    code = """if True:
        import infold, sys
        model = infold.load(sys.argv[1])
        assert "hashlib" not in sys.modules
        import onnx_ir as ir
        from onnx_ir.passes.common import DeduplicateHashedInitializersPass
        for name in ("one", "other"):
            model.graph.initializers.add(ir.Value(name=name, const_value=ir.tensor([1.0, 2.0], name=name)))
        before = len(model.graph.initializers)
        DeduplicateHashedInitializersPass()(model)
        print(before - len(model.graph.initializers), "hashlib" in sys.modules)"""
    assert run_python(code, path).split() == ["1", "True"]


def test_text_formats_are_found_later(path):
    code = """if True:
        import infold, sys
        session = infold.InferenceSession(sys.argv[1])
        assert "google.protobuf.text_format" not in sys.modules and "google.protobuf.json_format" not in sys.modules
        import onnx
        from google.protobuf import json_format, text_format
        model = onnx.load(sys.argv[1])
        for name, module in (("textproto", text_format), ("json", json_format)):
            onnx.save(model, sys.argv[1] + name, format=name)
            assert onnx.load(sys.argv[1] + name, format=name) == model
            print(module.Parse.__module__)"""
    assert run_python(code, path).split() == ["google.protobuf.text_format", "google.protobuf.json_format"]


@pytest.mark.parametrize("groups", [1, 2])
def test_packed_weights_are_found_again_bit_for_bit(groups):
    weights = [random_weight(34, 6 // groups, 3, 3), random_weight(8, 34 // groups, 1, 1)]
    weights[0].flat[:3] = np.nan, -0.0, 1e-45
    session = infold.InferenceSession(conv_model(weights, channels=6, groups=groups).SerializeToString())
    for i, weight in enumerate(weights):
        kept = session.model.graph.initializers[f"w{i}"].const_value.numpy()
        np.testing.assert_array_equal(kept.view(np.uint32), weight.view(np.uint32))


def test_large_weights_are_packed_in_pieces(monkeypatch):
    from infold.ops import product

    model = conv_model([random_weight(200, 7, 3, 3), random_weight(33, 200, 1, 1)], channels=7).SerializeToString()
    x = {"x": random_weight(1, 7, 4, 4)}
    whole = infold.InferenceSession(model).run(None, x)[0]
    monkeypatch.setattr(product, "PIECE", 1 << 14)
    session = infold.InferenceSession(model)
    np.testing.assert_array_equal(session.run(None, x)[0], whole)
    assert np.abs(whole).max() > 1


@pytest.mark.parametrize("batch", [1, "N"])
def test_the_file_may_change_afterwards(tmp_path, batch):
    model = conv_model([random_weight(64, 64, 3, 3)] * 2, channels=64, batch=batch)
    path, x = tmp_path / "m.onnx", {"x": random_weight(1, 64, 4, 4)}
    onnx.save(model, path)
    direct = infold.SessionOptions(algorithms={"*": "direct"})  # whose panels give the weights back
    expected = infold.InferenceSession(model.SerializeToString(), direct).run(None, x)[0]
    session = infold.InferenceSession(path, direct)
    path.write_bytes(b"")  # truncated in place: a view of the file would be gone
    np.testing.assert_array_equal(session.run(None, x)[0], expected)
    assert len(session.run_intermediates(x, ["y0"])["y0"])


def test_weights_are_in_memory_once(tmp_path):
    weights = [random_weight(512, 512, 3, 3) for _ in range(6)]  # 9 MiB each
    nbytes = sum(w.nbytes for w in weights)
    onnx.save(conv_model(weights, channels=512), tmp_path / "m.onnx")
    grown, packed = measured(tmp_path / "m.onnx", "direct")  # whose panels have the size of the weights
    assert packed >= nbytes
    assert grown < 1.7 * nbytes  # the packed form, one weight as it was, and the session itself


def measured(path, algorithm: str) -> tuple[int, int]:
    """Bytes by which a session's making raises the peak of a process, and those of its weights."""
    code = """if True:
        import infold, sys
        def peak():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
        infold.InferenceSession, infold.fold, infold.load
        import infold.importers.onnx, infold.runtime
        before = peak()
        session = infold.InferenceSession(sys.argv[1], infold.SessionOptions(
            intra_op_num_threads=1, algorithms={"*": sys.argv[2]}))
        print(peak() - before, session.report.weight_bytes)"""
    grown, packed = map(int, run_python(code, path, algorithm).split())
    return grown, packed


@pytest.mark.parametrize("options", [{"algorithms": {"*": "winograd2"}}, {"precision": "medium", "algorithms": {"*": "bf16"}}])
def test_weights_that_no_panel_gives_back_are_read_again(tmp_path, options):
    weights = [random_weight(160, 160, 3, 3) for _ in range(2)]
    path, x = tmp_path / "m.onnx", {"x": random_weight(1, 160, 4, 4)}
    onnx.save(conv_model(weights, channels=160), path)
    session, kept = (infold.InferenceSession(source, infold.SessionOptions(**options)) for source in (path, path.read_bytes()))
    tensors = [session.model.graph.initializers[f"w{i}"].const_value for i in range(2)]
    assert all(isinstance(tensor, ir.LazyTensor) for tensor in tensors)
    for tensor, weight in zip(tensors, weights):
        np.testing.assert_array_equal(tensor.numpy(), weight)
    np.testing.assert_array_equal(session.run(None, x)[0], kept.run(None, x)[0])


def test_a_file_that_changed_is_not_read_again(tmp_path):
    model = conv_model([random_weight(160, 160, 3, 3)] * 2, channels=160)
    path, x = tmp_path / "m.onnx", {"x": random_weight(1, 160, 4, 4)}
    onnx.save(model, path)
    session = infold.InferenceSession(path, infold.SessionOptions(algorithms={"*": "winograd2"}))
    expected = session.run(None, x)[0]
    path.write_bytes(b"")
    np.testing.assert_array_equal(session.run(None, x)[0], expected)
    with pytest.raises(infold.InvalidModelError, match="has changed"):
        session.model.graph.initializers["w0"].const_value.numpy()


def test_winograd_panels_are_made_without_the_weights_beside_them(tmp_path):
    weights = [random_weight(512, 512, 3, 3) for _ in range(6)]  # 9 MiB each, their panels 16
    onnx.save(conv_model(weights, channels=512), tmp_path / "m.onnx")
    grown, packed = measured(tmp_path / "m.onnx", "winograd2")
    assert packed >= 16 / 9 * sum(w.nbytes for w in weights)
    assert grown < packed + 0.8 * sum(w.nbytes for w in weights)  # some weights as they were, and the session itself


def test_transposed_weights_are_let_go_as_they_are_packed(tmp_path):
    weights = [random_weight(1024, 1024) for _ in range(12)]  # 4 MiB each
    nodes = [node for i in range(len(weights)) for node in (
        helper.make_node("Transpose", [f"w{i}"], [f"t{i}"], perm=[1, 0]),
        helper.make_node("MatMul", [f"y{i}", f"t{i}"], [f"y{i + 1}"]))]
    graph = helper.make_graph(nodes, "transposed", [helper.make_tensor_value_info("y0", TensorProto.FLOAT, [1, 1024])],
                              [helper.make_tensor_value_info("y12", TensorProto.FLOAT, [1, 1024])],
                              [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), tmp_path / "m.onnx")
    grown, packed = measured(tmp_path / "m.onnx", "direct")
    nbytes = sum(w.nbytes for w in weights)
    assert packed >= nbytes
    assert grown < 1.6 * nbytes


def test_folded_weights_are_let_go_as_they_are_packed(tmp_path):
    model = conv_model([random_weight(256, 256, 1, 1) for _ in range(128)], channels=256)  # 256 KiB each
    for name in ("scale", "shift", "mean", "var"):
        model.graph.initializer.append(numpy_helper.from_array(np.full(256, 1.5, np.float32), name))
    for i, node in enumerate(list(model.graph.node)):
        node.output[0] = f"z{i}"
        norm = helper.make_node("BatchNormalization", [f"z{i}", "scale", "shift", "mean", "var"], [f"y{i}"])
        model.graph.node.insert(2 * i + 1, norm)
    onnx.save(model, tmp_path / "m.onnx")
    grown, packed = measured(tmp_path / "m.onnx", "direct")
    assert packed >= 32 << 20
    assert grown < 1.8 * packed


def test_external_weights_are_mapped_and_let_go(tmp_path, monkeypatch):
    from infold.importers import _tensors

    monkeypatch.setattr(_tensors, "_read", lambda *_: pytest.fail("a large weight was copied"))
    weights, x = [random_weight(64, 64, 3, 3) for _ in range(3)], {"x": random_weight(1, 64, 4, 4)}
    model = conv_model(weights, channels=64)
    expected = infold.InferenceSession(model.SerializeToString()).run(None, x)[0]
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=1 << 16)
    for algorithms in ({}, {"*": "winograd2"}):
        session = infold.InferenceSession(tmp_path / "m.onnx", infold.SessionOptions(algorithms=algorithms))
        if algorithms:  # its panels do not give the weights back, and what lies outside the model's file is not read again
            (tmp_path / "m.data").write_bytes(b"")
        np.testing.assert_allclose(session.run(None, x)[0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        for i, weight in enumerate(weights):
            np.testing.assert_array_equal(session.model.graph.initializers[f"w{i}"].const_value.numpy(), weight)


@pytest.mark.parametrize("batch", [1, "N"])
def test_memory_goes_with_the_session(tmp_path, batch):
    onnx.save(conv_model([random_weight(64, 64, 3, 3)] * 2, channels=64, batch=batch), tmp_path / "m.onnx")
    gc.disable()  # a session must not wait for it
    try:
        for shared in (False, True):
            session = infold.InferenceSession(tmp_path / "m.onnx")
            session.run(None, {"x": random_weight(1, 64, 4, 4)})
            panels = [weakref.ref(array) for array in session.runner.store.arrays.values() if array.nbytes >= 1 << 16]
            model = session.model if shared else None
            assert panels
            del session
            if shared:  # it is somebody else's, too, and finds its weights as before
                assert model.graph.initializers["w0"].const_value.numpy().any()
            else:
                assert not any(ref() is not None for ref in panels)
    finally:
        gc.enable()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_pages_of_a_mapped_file_are_given_back_and_come_again(tmp_path):
    numbers, path = np.arange(1 << 18, dtype=np.float32), tmp_path / "numbers"
    numbers.tofile(path)
    with path.open("rb") as file:
        array = np.frombuffer(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), np.float32)

    def resident() -> int:
        lines = iter(Path("/proc/self/smaps").read_text().splitlines())
        return sum(1024 * int(next(each for each in lines if each.startswith("Rss")).split()[1])
                   for line in lines if line.endswith(str(path)))

    np.testing.assert_array_equal(array, numbers)
    part = array[100:200_000].reshape(-1, 10)
    for other in (part[::2], array[:10], numbers):  # no contiguous view, less than a page, no file
        files.give_back(other)
    assert resident() == numbers.nbytes
    files.give_back(part)
    assert 0 <= resident() - (numbers.nbytes - part.nbytes) < 2 * mmap.PAGESIZE
    np.testing.assert_array_equal(array, numbers)
    assert resident() == numbers.nbytes
